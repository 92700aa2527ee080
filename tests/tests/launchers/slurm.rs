//! `deploy/shards/slurm.sh`, started as Slurm starts the tasks of an array.

use std::fs;

use super::{Launch, SHARDS, deployed, outcome, outcomes_of_shards};

pub(super) const SCRIPT: &str = "shards/slurm.sh";

/// The commands in the comment of the script.
pub(super) fn commands() -> Vec<String> {
    let script = fs::read_to_string(deployed(SCRIPT)).unwrap();
    let commands: Vec<String> =
        script.lines().filter_map(|line| line.strip_prefix("#   $ ")).map(str::to_owned).collect();
    let [array, closing] = &commands[..] else { panic!("{commands:?}") };
    assert!(array.contains("sbatch --parsable deploy/shards/slurm.sh docs.toml"), "{array}");
    assert!(closing.starts_with("sbatch --dependency=afterany:$array "), "{closing}");
    commands
}

#[test]
fn array_and_closing_run_make_the_table_of_one_run() {
    let launch = Launch::new();
    let task = |index: usize| {
        let mut task = launch.command("bash");
        task.arg(deployed(SCRIPT)).arg("docs.toml");
        task.env("SLURM_ARRAY_TASK_ID", index.to_string()).env("SLURM_ARRAY_TASK_MIN", "0");
        task.env("SLURM_ARRAY_TASK_COUNT", SHARDS.to_string());
        task
    };
    let mut codes: Vec<i32> = outcomes_of_shards(task).iter().map(|task| task.code).collect();
    codes.sort_unstable();
    assert_eq!(codes, [0, 0, 3], "one shard has the row without a text");

    let closing = &commands()[1];
    let wrapped = closing.split('"').nth(1).unwrap();
    let mut run = launch.command("bash");
    run.args(["-c", wrapped]);
    drop(outcome(run).exits_with(3));
    launch.assert_table_is_that_of_one_run();
}

#[test]
fn directives_of_the_script_come_before_its_command() {
    let script = fs::read_to_string(deployed(SCRIPT)).unwrap();
    // Slurm reads no directive after the first command.
    let (head, _) = script.split_once("\nexec ").unwrap();
    assert!(head.lines().all(|line| line.is_empty() || line.starts_with('#')), "{head}");
    for directive in ["--array=0-7", "--requeue", "--signal=B:TERM@60"] {
        assert!(head.lines().any(|line| line == format!("#SBATCH {directive}")), "{directive}");
    }
}
