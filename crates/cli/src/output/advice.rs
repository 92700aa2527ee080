//! Advice about a table's index.

use polylance_sink::Staleness;

use super::printer::Printer;

/// Warns that the index should be rebuilt, with the reason and the command.
pub(crate) fn advise(retrain: Staleness, table: &str, printer: &mut Printer) {
    let why = match retrain {
        Staleness::Grown => {
            "the table has grown to several times the rows that its index was built on: searches read too much"
        }
        Staleness::Drifted => "new rows differ from those that the index was built on and fill few of its partitions",
    };
    printer.warning(why);
    printer.hint(format_args!("polylance compact --table {table} --retrain"));
}
