//! How a command ends.

/// The process's exit code, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ExitStatus {
    /// 0: everything was done.
    Done = 0,
    /// 1: it failed.
    Failed = 1,
    /// 2: the command or its configuration is wrong.
    WrongUsage = 2,
    /// 3: done, and some rows are in the quarantine.
    Quarantined = 3,
    /// 130: stopped by the user.
    Interrupted = 130,
}
