//! Which shard of its source a process embeds.

use polylance_schema::{Shard, WriteConcurrency};

use super::job::Job;
use crate::UsageError;

/// The number of shards. It replaces the size of a Slurm array, so that single tasks of an array can be run again.
const SHARDS: &str = "POLYLANCE_SHARDS";
/// Set in each pod of an Indexed Job of Kubernetes.
const COMPLETION_INDEX: &str = "JOB_COMPLETION_INDEX";
/// Set in each task of a Slurm array.
const TASK_ID: &str = "SLURM_ARRAY_TASK_ID";
const TASK_MIN: &str = "SLURM_ARRAY_TASK_MIN";
const TASK_STEP: &str = "SLURM_ARRAY_TASK_STEP";
const TASK_COUNT: &str = "SLURM_ARRAY_TASK_COUNT";

const AUTO_HINT: &str = "`--shard auto` needs SLURM_ARRAY_TASK_ID with SLURM_ARRAY_TASK_COUNT, which Slurm sets in the \
                         tasks of an array, or JOB_COMPLETION_INDEX, which Kubernetes sets in the pods of an Indexed \
                         Job, with POLYLANCE_SHARDS, the number of its completions; elsewhere write --shard INDEX/COUNT";

/// The shard of a task of a Slurm array, or of a pod of an Indexed Job of Kubernetes. `variable` returns an environment
/// variable.
///
/// # Errors
/// [`UsageError`] if the variables are missing, are no numbers, or name no shard.
pub fn shard_of_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Shard, UsageError> {
    let number = |name: &str| match variable(name) {
        None => Ok(None),
        Some(value) => value.trim().parse::<u32>().map(Some).map_err(|_| {
            UsageError::new(format!("{name} must be a whole number, found {value:?}")).with_hint(AUTO_HINT)
        }),
    };
    let missing =
        |set: &str, unset: &str| UsageError::new(format!("{set} is set, and {unset} is not")).with_hint(AUTO_HINT);
    let shards = number(SHARDS)?;
    let (index, of, source) = match (number(TASK_ID)?, number(COMPLETION_INDEX)?, shards) {
        (Some(task), None, Some(shards)) => (task, shards, format!("{TASK_ID} of {SHARDS}")),
        (Some(task), None, None) => {
            let count = number(TASK_COUNT)?.ok_or_else(|| missing(TASK_ID, TASK_COUNT))?;
            let (first, step) = (number(TASK_MIN)?.unwrap_or_default(), number(TASK_STEP)?.unwrap_or(1).max(1));
            let place = task.checked_sub(first).filter(|place| place % step == 0).map(|place| place / step);
            let Some(place) = place.filter(|place| *place < count) else {
                let message = format!(
                    "{TASK_ID} = {task} is not among the {count} tasks from {TASK_MIN} = {first} in steps of {step}"
                );
                let hint = format!("number the tasks without gaps, as in `--array=0-7`, or set {SHARDS}");
                return Err(UsageError::new(message).with_hint(hint));
            };
            (place, count, format!("{TASK_ID} of {TASK_COUNT}"))
        }
        (None, Some(index), Some(shards)) => (index, shards, format!("{COMPLETION_INDEX} of {SHARDS}")),
        (None, Some(_), None) => return Err(missing(COMPLETION_INDEX, SHARDS)),
        (None, None, Some(_)) => {
            let message = format!("{SHARDS} is set, and neither {TASK_ID} nor {COMPLETION_INDEX} is");
            return Err(UsageError::new(message).with_hint(AUTO_HINT));
        }
        (None, None, None) => {
            let message = "the environment names no shard: it is neither a task of a Slurm array nor a pod of an \
                           Indexed Job";
            return Err(UsageError::new(message).with_hint(AUTO_HINT));
        }
        (Some(_), Some(_), _) => {
            let message = format!("{TASK_ID} and {COMPLETION_INDEX} are both set");
            return Err(UsageError::new(message).with_hint("write --shard INDEX/COUNT"));
        }
    };
    Shard::new(index, of).map_err(|error| UsageError::new(format!("{source}: {error}")).with_hint(AUTO_HINT))
}

impl Job {
    /// Refuses settings that contradict a shard.
    pub(super) fn check_shard(&self) -> Result<(), UsageError> {
        if self.shard.is_none() {
            return Ok(());
        }
        if self.source.is_stdin() {
            let error = UsageError::new("standard input has no shards: each process has an input of its own");
            return Err(error.with_hint("name files that all processes read as `uri` in [source]"));
        }
        if self.concurrency == WriteConcurrency::Refuse {
            let error = UsageError::new(
                "`table.concurrent` is \"refuse\", and the shards of a source write to the table at the same time",
            );
            return Err(error.with_hint("leave `concurrent` out of [table], or run without --shard"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use polylance_schema::Explain;

    use super::*;

    fn shard(variables: &[(&str, &str)]) -> Result<Shard, UsageError> {
        let value = |name: &str| variables.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned());
        shard_of_environment(value)
    }

    #[test]
    fn tasks_of_an_array_and_pods_of_a_job_are_shards() {
        let array = |id, min, step, count| [(TASK_ID, id), (TASK_MIN, min), (TASK_STEP, step), (TASK_COUNT, count)];
        for (variables, expected) in [
            (&array("0", "0", "1", "8")[..], "0/8"),
            (&array("8", "1", "1", "8"), "7/8"),
            (&array("14", "10", "2", "4"), "2/4"),
            (&[(TASK_ID, "3"), (TASK_COUNT, "4")], "3/4"),
            // A single task of an array of eight, again.
            (&[(TASK_ID, "3"), (TASK_MIN, "3"), (TASK_COUNT, "1"), (SHARDS, "8")], "3/8"),
            (&[(COMPLETION_INDEX, "63"), (SHARDS, "64")], "63/64"),
        ] {
            assert_eq!(shard(variables).unwrap().to_string(), expected, "{variables:?}");
        }
    }

    #[test]
    fn half_of_a_pair_is_refused_with_both_pairs_in_the_hint() {
        for (variables, expected) in [
            (&[][..], "the environment names no shard"),
            (&[(TASK_ID, "3")], "SLURM_ARRAY_TASK_ID is set, and SLURM_ARRAY_TASK_COUNT is not"),
            (&[(TASK_COUNT, "3")], "the environment names no shard"),
            (&[(COMPLETION_INDEX, "3")], "JOB_COMPLETION_INDEX is set, and POLYLANCE_SHARDS is not"),
            (&[(SHARDS, "3")], "POLYLANCE_SHARDS is set, and neither SLURM_ARRAY_TASK_ID nor JOB_COMPLETION_INDEX is"),
            (
                &[(COMPLETION_INDEX, "8"), (SHARDS, "8")],
                "JOB_COMPLETION_INDEX of POLYLANCE_SHARDS: there is no shard 8/8",
            ),
            (&[(COMPLETION_INDEX, "x"), (SHARDS, "8")], "JOB_COMPLETION_INDEX must be a whole number, found \"x\""),
        ] {
            let error = shard(variables).unwrap_err();
            assert!(error.to_string().starts_with(expected), "{error}");
            let hint = error.hint().unwrap();
            for name in [TASK_ID, TASK_COUNT, COMPLETION_INDEX, SHARDS] {
                assert!(hint.contains(name), "{hint}");
            }
        }
    }

    #[test]
    fn array_with_gaps_and_two_launchers_are_refused() {
        let gaps = [(TASK_ID, "5"), (TASK_MIN, "1"), (TASK_COUNT, "3")];
        assert!(shard(&gaps).unwrap_err().to_string().contains("is not among the 3 tasks"));
        let both = [(TASK_ID, "5"), (COMPLETION_INDEX, "1"), (SHARDS, "8")];
        assert!(shard(&both).unwrap_err().to_string().contains("both set"));
    }
}
