//! The crates depend on each other in one direction only.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

/// The crates of this workspace that each crate may import. A crate that is not listed fails the test.
const ALLOWED: [(&str, &[&str]); 26] = [
    ("schema", &[]),
    ("ids", &[]),
    ("builtin", &[]),
    ("hub", &["schema"]),
    ("iceberg", &[]),
    ("config", &["schema"]),
    ("backend", &["schema"]),
    ("kernels", &[]),
    ("fake-cuda", &[]),
    ("cuda", &[]),
    ("encoder", &["schema", "builtin", "hub", "kernels", "cuda"]),
    ("fit", &["schema", "encoder"]),
    ("worker", &["schema", "backend", "encoder", "kernels"]),
    ("gpu-bench", &["schema", "backend", "cuda", "encoder", "worker"]),
    ("dataflow", &["schema", "ids", "builtin", "hub", "iceberg", "backend"]),
    ("sink", &["schema", "ids", "hub", "backend", "dataflow"]),
    ("search", &["schema", "hub", "backend"]),
    ("server", &["schema", "backend", "search"]),
    ("testkit", &["schema", "backend"]),
    ("cluster", &["schema", "backend", "dataflow", "sink"]),
    ("ballista", &["dataflow", "cluster"]),
    (
        "engine",
        &["schema", "config", "hub", "backend", "encoder", "fit", "worker", "dataflow", "sink", "search", "cluster"],
    ),
    (
        "cli",
        &[
            "schema", "builtin", "config", "backend", "encoder", "fit", "worker", "dataflow", "sink", "search",
            "engine", "server", "cluster", "ballista",
        ],
    ),
    ("python", &["schema", "builtin", "config", "backend", "search", "engine", "ballista", "cli"]),
    ("hostile", &["schema", "backend", "config", "encoder", "worker", "dataflow"]),
    (
        "tests",
        &["schema", "builtin", "backend", "encoder", "dataflow", "sink", "testkit", "cluster", "ballista", "engine"],
    ),
];

fn metadata() -> Metadata {
    MetadataCommand::new().manifest_path(polylance_tests::repository().join("Cargo.toml")).exec().unwrap()
}

#[test]
fn crates_import_only_lower_layers() {
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.into_iter().collect();
    for package in metadata().workspace_packages() {
        let name = package.name.strip_prefix("polylance-").unwrap();
        let allowed = allowed.get(name).unwrap_or_else(|| panic!("{name} is missing in the list of crates"));
        for dependency in package.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal) {
            if let Some(imported) = dependency.name.strip_prefix("polylance-") {
                assert!(allowed.contains(&imported), "{name} imports {imported}");
            }
        }
    }
}

#[test]
fn operators_and_tables_compile_without_candle() {
    for root in ["polylance-dataflow", "polylance-sink", "polylance-search", "polylance-cluster", "polylance-ballista"]
    {
        let reached = reachable_packages(root);
        assert!(reached.contains("arrow-schema") && !reached.contains("candle-core"), "{root} reaches candle");
    }
}

#[test]
fn engine_compiles_without_front_ends() {
    let reached = reachable_packages("polylance-engine");
    assert!(reached.contains("candle-core"));
    // indicatif is not listed: the hub's client depends on it.
    for front_end in ["clap", "rustyline", "axum", "polylance-server", "polylance-cli"] {
        assert!(!reached.contains(front_end), "the engine reaches {front_end}");
    }
}

/// The names of all packages that a crate of this workspace is compiled with.
fn reachable_packages(root: &str) -> BTreeSet<String> {
    let metadata = metadata();
    let resolve = metadata.resolve.as_ref().unwrap();
    let package = metadata.workspace_packages().into_iter().find(|p| p.name == root).unwrap();
    let (mut seen, mut open) = (BTreeSet::new(), vec![&package.id]);
    while let Some(id) = open.pop() {
        if seen.insert(id) {
            let node = resolve.nodes.iter().find(|node| &node.id == id).unwrap();
            let normal = node.deps.iter().filter(|d| d.dep_kinds.iter().any(|k| k.kind == DependencyKind::Normal));
            open.extend(normal.map(|d| &d.pkg));
        }
    }
    seen.into_iter().map(|id| metadata[id].name.to_string()).collect()
}
