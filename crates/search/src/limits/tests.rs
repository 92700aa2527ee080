//! Compares the lists with DataFusion's registry, and runs random statements.

use std::{collections::BTreeSet, sync::Arc};

use arrow::array::RecordBatch;
use datafusion::{execution::context::SessionContext, functions_window::all_default_window_functions};
use futures::TryStreamExt;

use super::{bounded, names, sizes};
use crate::{LoadedModels, SearchError, SqlRuntime, SqlSession};

fn session() -> SqlSession {
    let models = Arc::new(LoadedModels::default());
    SqlSession::over([], models, Some(&SqlRuntime::new(64 << 20, 1 << 20).unwrap())).unwrap()
}

async fn run(session: &SqlSession, sql: &str) -> Result<Vec<RecordBatch>, SearchError> {
    let stream = Box::pin(session.query(sql)).await?;
    stream.try_collect().await.map_err(SearchError::from)
}

/// Runs a test on a stack as large as the server's: planners recurse once for each level of nesting.
fn on_large_stack(test: impl Future<Output = ()> + Send + 'static) {
    let run = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
    let ended = std::thread::Builder::new().stack_size(256 << 20).spawn(run).unwrap().join();
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

async fn refused(sql: &str) -> SearchError {
    match run(&session(), sql).await {
        Err(error) => error,
        Ok(rows) => panic!("{sql} has {} batches", rows.len()),
    }
}

#[test]
fn every_function_of_the_registry_is_on_exactly_one_list() {
    let state = SessionContext::new().state();
    let listed = |name: &str| {
        let bounded = names::BOUNDED.iter().any(|(bounded, _)| *bounded == name);
        let lists = [names::SCALAR, names::CASTS, names::REFUSED].iter().filter(|list| list.contains(&name)).count();
        lists + usize::from(bounded)
    };
    let scalar: BTreeSet<&str> = state.scalar_functions().values().map(|function| function.name()).collect();
    for name in &scalar {
        assert_eq!(listed(name), 1, "the function `{name}`");
    }
    let aggregates: BTreeSet<&str> = state.aggregate_functions().values().map(|function| function.name()).collect();
    for name in &aggregates {
        assert!(names::AGGREGATES.contains(name) != names::COLLECTING.contains(name), "the aggregate `{name}`");
    }
    for function in all_default_window_functions() {
        assert!(names::WINDOW.contains(&function.name()), "the window function `{}`", function.name());
    }
    for name in state.higher_order_functions().values().map(|function| function.name()) {
        assert!(!names::SCALAR.contains(&name), "the higher-order function `{name}`");
    }
}

#[test]
fn refused_functions_are_refused_in_every_notation() {
    on_large_stack(refuse_all());
}

async fn refuse_all() {
    for sql in [
        "SELECT repeat('x', 3)",
        "SELECT `repeat`('x', 3)",
        "SELECT \"repeat\"('x', 3)",
        "SELECT REPEAT('x', 3)",
        "SELECT a FROM (SELECT lpad('x', 9) a)",
        "SELECT 1 WHERE 'x' IN (SELECT rpad('x', 2))",
        "SELECT count(*) FROM (VALUES (1)) t(a) JOIN (VALUES (1)) u(b) ON a = b AND repeat('x', b) = 'x'",
        "SELECT count(*) FROM (VALUES (1)) t(a) GROUP BY repeat('x', a)",
        "SELECT a FROM (VALUES (1)) t(a) ORDER BY repeat('x', a)",
        "SELECT sum(1) OVER (PARTITION BY repeat('x', a)) FROM (VALUES (1)) t(a)",
        "SELECT * FROM (VALUES (repeat('x', 3))) t",
        "EXPLAIN SELECT repeat('x', 3)",
        "EXPLAIN ANALYZE SELECT repeat('x', 3)",
        "SELECT * FROM generate_series(1, length(repeat('x', 9)))",
        "SELECT * FROM generate_series(1, length(encode('x', 'hex')))",
        "WITH RECURSIVE r AS (SELECT 'x' AS v UNION ALL SELECT v || v FROM r) SELECT max(length(v)) FROM r",
        "SELECT arrow_metadata('x')",
        "SELECT arrow_field('x')",
        "SELECT version()",
        "SELECT array_repeat('x', 3)",
        "SELECT range(1, 5)",
        "SELECT {a: 1}",
        "SELECT named_struct('a', 1)",
        "SELECT array_transform([1], v -> v + 1)",
        "SELECT CAST(NULL AS INT[2000000000])",
        "SELECT arrow_cast(NULL, 'FixedSizeBinary(2000000000)')",
        "SELECT arrow_try_cast(NULL, 'Dictionary(Int8, FixedSizeBinary(2000000000))')",
        "SELECT array_agg(value) OVER (ORDER BY value) FROM generate_series(1, 9)",
        "SELECT median(value) OVER (ORDER BY value) FROM generate_series(1, 9)",
        "SELECT count(*) FROM (VALUES ('x')) t(a) WHERE a ~ a",
        "SELECT count(*) FROM (VALUES ('x')) t(a) WHERE a LIKE a",
        "SELECT regexp_like(a, a) FROM (VALUES ('x')) t(a)",
        "SELECT regexp_like('x', '(\\w{100}){50}')",
        "SELECT 'x' ~ '(\\w{100}){50}'",
    ] {
        let error = refused(sql).await;
        assert!(matches!(error, SearchError::NotAllowed(_)), "{sql}: {error}");
    }
}

#[test]
fn growing_values_are_refused_before_they_are_allocated() {
    on_large_stack(refuse_growth());
}

async fn refuse_growth() {
    let chained = |times: usize, made: &str| {
        let levels: Vec<String> =
            (1..=times).map(|at| format!("t{at} AS (SELECT {made} AS v FROM t{})", at - 1)).collect();
        format!(
            "WITH t0 AS (SELECT concat('abcdefg', value) AS v FROM generate_series(1, 3)), {} SELECT length(v) FROM t{times}",
            levels.join(", ")
        )
    };
    let nested = |times: usize, before: &str, after: &str| {
        format!("SELECT length({}'abcdefgh'{})", before.repeat(times), after.repeat(times))
    };
    let eights = ["v"; 8].join(", ");
    for sql in [
        chained(40, "v || v"),
        chained(40, "concat(v, v)"),
        chained(40, "concat_ws(v, v, v)"),
        chained(30, "overlay(v placing v from 1 for 0)"),
        chained(12, &format!("array_to_string([{eights}], '')")),
        chained(20, "replace(v, 'a', v)"),
        chained(20, "replace(v, '', v)"),
        chained(20, "regexp_replace(v, '', v, 'g')"),
        chained(20, "regexp_replace(v, '.*', '${0}${0}${0}${0}')"),
        nested(40, "encode(", ", 'hex')"),
        format!("SELECT length(string_agg(concat('{}', value), '')) FROM generate_series(1, 40000)", "x".repeat(500)),
        format!("SELECT cardinality(array_agg(concat('{}', value))) FROM generate_series(1, 40000)", "x".repeat(500)),
        format!("SELECT levenshtein(v, v) FROM ({}) t", chained(16, "v || v").replace("length(v)", "v")),
        format!(
            "SELECT v, unnest(string_to_array(v, 'a')) FROM ({}) t",
            chained(13, "v || v").replace("length(v)", "v")
        ),
        format!(
            "SELECT count(DISTINCT concat(v, value)) FROM ({}) t, generate_series(1, 1000000)",
            chained(18, "v || v").replace("length(v)", "v")
        ),
    ] {
        let error = refused(&sql).await;
        let bounded = matches!(&error, SearchError::TooLarge(_))
            || error.to_string().contains("Resources exhausted")
            || error.to_string().contains("would make");
        assert!(bounded, "{}: {error}", sql.chars().take(200).collect::<String>());
    }
}

#[test]
fn common_statements_are_answered() {
    on_large_stack(answer_all());
}

async fn answer_all() {
    let session = session();
    for (sql, expected) in [
        ("SELECT 'a' || 1 || NULL IS NULL", "true"),
        ("SELECT 'a' || 'b'", "ab"),
        ("SELECT concat('a', NULL, 'b')", "ab"),
        ("SELECT concat_ws('-', 'a', NULL, 'b')", "a-b"),
        ("SELECT replace('banana', 'an', 'x')", "bxxa"),
        ("SELECT regexp_replace('ab12', '([a-z]+)([0-9]+)', '\\2\\1')", "12ab"),
        ("SELECT array_to_string(['a', 'b'], ', ')", "a, b"),
        ("SELECT overlay('abcd' placing 'xx' from 2 for 1)", "axxcd"),
        ("SELECT encode('ab', 'hex')", "6162"),
        ("SELECT levenshtein('kitten', 'sitting')", "3"),
        ("SELECT ltrim('xxa', 'x')", "a"),
        ("SELECT to_char(DATE '2026-01-31', '%Y/%m')", "2026/01"),
        ("SELECT string_agg(v, ',' ORDER BY v DESC) FROM (VALUES ('a'), ('b')) t(v)", "b,a"),
        ("SELECT array_to_string(array_agg(DISTINCT v), ',') FROM (VALUES ('a'), ('a')) t(v)", "a"),
        ("SELECT count(*) FROM (SELECT unnest([1, 2, 3]) v) WHERE v > 1", "2"),
        ("SELECT sum(a) OVER (ORDER BY a) FROM (VALUES (4)) t(a)", "4"),
        ("SELECT max(length(v)) FROM (SELECT 'ab' || 'c' AS v) t", "3"),
        (
            "SELECT count(*) FROM (VALUES ('water')) t(a) WHERE a LIKE 'wa%' AND a ~ '^w\\w+r$' AND regexp_like(a, 'T', 'i')",
            "1",
        ),
        ("SELECT arrow_typeof(arrow_cast('x', 'Dictionary(Int32, Utf8)'))", "Dictionary(Int32, Utf8)"),
        ("SELECT translate('abc', 'ab', 'xy')", "xyc"),
        ("SELECT date_trunc('month', TIMESTAMP '2026-01-31T10:00:00')", "2026-01-01T00:00:00"),
        ("SELECT array_has_any(['a', 'b'], ['b'])", "true"),
        ("SELECT CASE WHEN 1 > 0 THEN coalesce(NULL, 'x') END", "x"),
    ] {
        let rows = run(&session, sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        let batch = rows.iter().find(|batch| batch.num_rows() > 0).unwrap_or_else(|| panic!("{sql} has no rows"));
        let shown = arrow::util::display::array_value_to_string(batch.column(0), 0).unwrap();
        assert_eq!(shown, expected, "{sql}");
    }
    let named = session.schema("SELECT 'a' || 'b', concat('a', 'b'), array_agg(1)").await.unwrap();
    let names: Vec<&str> = named.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["Utf8(\"a\") || Utf8(\"b\")", "concat(Utf8(\"a\"),Utf8(\"b\"))", "array_agg(Int64(1))"]);
}

/// Pseudorandom numbers, the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % most as u64) as usize
    }
}

/// The peak memory of the process, in bytes: nextest runs each test in a process of its own.
fn peak_memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() << 10
}

/// Random nestings of functions from the registry, each applied to the output of the one before.
/// `POLYLANCE_STATEMENTS` sets their number.
#[test]
fn nested_functions_stay_within_the_bounds() {
    on_large_stack(nest_at_random());
}

/// Maximum memory of a statement besides the 64 MiB of the session's pool: several levels of calls at once, each with a
/// batch of output.
const MAX_GROWTH_BYTES: usize = 512 << 20;

async fn nest_at_random() {
    let state = SessionContext::new().state();
    let registry: BTreeSet<&str> = state.scalar_functions().values().map(|function| function.name()).collect();
    let registry: Vec<&str> = registry.into_iter().collect();
    let aggregates: BTreeSet<&str> = state.aggregate_functions().values().map(|function| function.name()).collect();
    let aggregates: Vec<&str> = aggregates.into_iter().collect();
    let statements = std::env::var("POLYLANCE_STATEMENTS").map_or(300, |count| count.parse().unwrap());
    let session = session();
    let before = peak_memory();
    let mut numbers = Numbers(0x9E37_79B9_7F4A_7C15);
    let (mut answered, mut bounded) = (0, 0);
    for _ in 0..statements {
        let mut levels = vec!["t0 AS (SELECT 'ab12' AS v FROM generate_series(1, 2))".to_owned()];
        for at in 1..=1 + numbers.below(14) {
            let before = at - 1;
            if numbers.below(8) == 0 {
                let name = aggregates[numbers.below(aggregates.len())];
                let args = ["v", "v, v", "DISTINCT v", "v ORDER BY v"][numbers.below(4)];
                let made = format!("CAST({name}({args}) AS VARCHAR)");
                levels.push(format!("t{at} AS (SELECT {made} AS v FROM t{before}, generate_series(1, 40))"));
                continue;
            }
            let made = match numbers.below(8) {
                0 => "v || v".to_owned(),
                1 => "overlay(v placing v from 1 for 0)".to_owned(),
                2 => "concat(v, v, v)".to_owned(),
                _ => {
                    let name = registry[numbers.below(registry.len())];
                    let quote = ["", "`", "\""][numbers.below(3)];
                    let args = ["v", "v, v", "v, 'hex'", "v, 'a', v", "v, 2", "v, v, v"][numbers.below(6)];
                    format!("{quote}{name}{quote}({args})")
                }
            };
            levels.push(format!("t{at} AS (SELECT CAST({made} AS VARCHAR) AS v FROM t{before})"));
        }
        let sql = format!("WITH {} SELECT v FROM t{}", levels.join(", "), levels.len() - 1);
        match run(&session, &sql).await {
            Ok(batches) => {
                answered += 1;
                let largest = batches.iter().flat_map(|batch| sizes::bytes(batch.column(0))).max().unwrap_or(0);
                assert!(largest <= 2 * bounded::MAX_VALUE_BYTES, "{sql}: {largest}");
            }
            Err(SearchError::TooLarge(_) | SearchError::NotAllowed(_)) => bounded += 1,
            // Arguments of other types.
            Err(_) => {}
        }
        let grown = peak_memory() - before;
        assert!(grown <= MAX_GROWTH_BYTES, "{sql}: {grown} bytes");
    }
    assert!(answered > 10 && bounded > 10, "{answered} were answered, {bounded} were bounded");
}
