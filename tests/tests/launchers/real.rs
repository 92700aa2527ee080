//! The launchers themselves: a Slurm of this machine, and Ray from PyPI.

use std::fs;

use polylance_tests::{Slurm, python_with_ray};

use super::{
    FILES, Launch, ROWS, deployed, outcome,
    slurm::{SCRIPT, commands},
};

#[test]
fn slurm_runs_the_array_and_then_the_closing_run() {
    let launch = Launch::new();
    fs::create_dir(launch.path("slurm")).unwrap();
    let slurm = Slurm::start(&launch.path("slurm"));
    let script = deployed(SCRIPT).display().to_string();
    let submit = |commands: &str| {
        // `sbatch --wait` ends with the exit code of the job.
        let commands =
            commands.replace("deploy/shards/slurm.sh", &script).replace("--dependency", "--wait --dependency");
        let mut bash = launch.command("bash");
        bash.args(["-e", "-c", &commands]).env("SLURM_CONF", slurm.config());
        outcome(bash)
    };
    drop(submit(&commands().join("\n")).exits_with(3));
    let logs = fs::read_dir(launch.folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let logs = logs.filter(|path| path.extension().is_some_and(|extension| extension == "out"));
    let (shards, closing): (Vec<_>, Vec<_>) =
        logs.partition(|log| log.file_stem().unwrap().to_str().unwrap().contains('_'));
    assert_eq!((shards.len(), closing.len()), (8, 1));
    let closing = fs::read_to_string(&closing[0]).unwrap();
    let rows = FILES * ROWS;
    assert!(closing.contains(&format!("{rows} read, {} unchanged, 0 written", rows - 1)), "{closing}");
    launch.assert_table_is_that_of_one_run();

    // Two tasks of the array again.
    drop(submit("POLYLANCE_SHARDS=8 sbatch --wait --array=0,2 deploy/shards/slurm.sh docs.toml").exits_with(0));
    launch.assert_table_is_that_of_one_run();
}

#[test]
fn ray_runs_the_shards_and_then_the_closing_run() {
    let launch = Launch::new();
    let mut script = launch.command(python_with_ray());
    script.arg(deployed("shards/ray_shards.py")).args([&launch.text("docs.toml"), "--shards", "4"]);
    script.env_remove("RAY_ADDRESS");
    drop(outcome(script).exits_with(0));
    launch.assert_table_is_that_of_one_run();
}
