//! Every pipeline file of the repository is a valid one.

use polylance_tests::{polylance, repository};

#[test]
fn every_pipeline_file_is_accepted() {
    let files = std::fs::read_dir(repository().join("pipelines")).unwrap().map(|entry| entry.unwrap().path());
    let tomls: Vec<_> = files.filter(|path| path.extension().is_some_and(|e| e == "toml")).collect();
    assert!(tomls.len() >= 2);
    for file in tomls {
        let plan = polylance(&["run", file.to_str().unwrap(), "--explain"]).exits_with(0);
        for operator in ["SourceScanExec", "TokenizeExec", "EncodeExec", "LanceWriteExec", "LanceCommitExec"] {
            assert!(plan.stdout.contains(operator), "{}:\n{}", file.display(), plan.stdout);
        }
    }
}
