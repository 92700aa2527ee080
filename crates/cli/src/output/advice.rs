//! What a command advises to do for a table.

use polylance_sink::Retrain;

use crate::output::Printer;

/// Says why the index should be built anew, and how.
pub(crate) fn advise(retrain: Retrain, table: &str, printer: &mut Printer) {
    let why = match retrain {
        Retrain::Grown => "the table has several times the rows that its index was built on: searches read too much",
        Retrain::Drifted => {
            "new rows are unlike those that the index was built on and crowd into few of its partitions"
        }
    };
    printer.warning(why);
    printer.hint(format_args!("polylance compact --table {table} --retrain"));
}
