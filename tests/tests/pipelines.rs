//! Every pipeline file of the repository is a valid one.

use polylance_encoder::HeadKind;
use polylance_tests::{polylance_command, repository, write_head_model};

#[test]
fn every_pipeline_file_is_valid() {
    let files = std::fs::read_dir(repository().join("pipelines")).unwrap().map(|entry| entry.unwrap().path());
    let tomls: Vec<_> = files.filter(|path| path.extension().is_some_and(|e| e == "toml")).collect();
    assert!(tomls.len() >= 2);
    // The heads that the scripts fit.
    let folder = tempfile::tempdir().unwrap();
    write_head_model(&folder.path().join("models/language"), HeadKind::SequenceClassification, &["eng", "tha"]);
    write_head_model(&folder.path().join("models/entities"), HeadKind::TokenClassification, &["O", "B-person"]);
    for file in tomls {
        let mut command = polylance_command();
        let output =
            command.args(["run", file.to_str().unwrap(), "--explain"]).current_dir(folder.path()).output().unwrap();
        let plan = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{}:\n{}", file.display(), String::from_utf8_lossy(&output.stderr));
        for operator in ["SourceScanExec", "TokenizeExec", "EncodeExec", "LanceWriteExec", "LanceCommitExec"] {
            assert!(plan.contains(operator), "{}:\n{plan}", file.display());
        }
    }
}
