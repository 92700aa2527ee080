//! How a command ends.

/// The exit codes of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ExitStatus {
    /// 0: done.
    Done = 0,
    /// 1: failed.
    Failed = 1,
    /// 2: the command or its configuration is wrong.
    WrongUsage = 2,
    /// 3: done, with rows in the quarantine.
    Quarantined = 3,
    /// 130: stopped by the user.
    Interrupted = 130,
}
