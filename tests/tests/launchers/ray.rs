//! `deploy/shards/ray_shards.py`: its shards, without Ray.

use polylance_tests::python;

use super::{Launch, deployed, outcome};

const RUN_SHARDS: &str = "import sys; sys.path.insert(0, sys.argv[1])
from ray_shards import run_shard
for index in range(3):
    run_shard('docs.toml', '--shard', f'{index}/3')
run_shard('docs.toml')
try:
    run_shard('missing.toml')
except ValueError:
    sys.exit(0)
sys.exit('a wrong configuration is tried again')";

#[test]
fn shards_of_the_script_make_the_table_of_one_run() {
    let launch = Launch::new();
    let mut shards = launch.command(python());
    shards.args(["-B", "-c", RUN_SHARDS]).arg(deployed("shards"));
    drop(outcome(shards).exits_with(0));
    launch.assert_table_is_that_of_one_run();
}
