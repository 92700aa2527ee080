//! Which split is requested when, and when its rows may be committed: a state machine without clock and network.
//!
//! Splits are requested ahead of the commits, and their results come in any order, late, twice, or not at all. Rows
//! leave in the order of the source. The ids of a split are compared with those of all splits before it, in order; a
//! split with an id that an earlier one has is embedded again without that row. If that happens often, ids are
//! requested before rows, so that no row is embedded twice.

#[cfg(test)]
mod tests;

use std::{collections::VecDeque, time::Duration};

use crate::task::TaskKind;

/// Tasks in flight per slot: the second is there when the first ends.
const IN_FLIGHT_PER_SLOT: usize = 2;
/// Splits from the oldest that is not released, per slot, of which tasks may be in flight or done.
const WINDOW_PER_SLOT: usize = 6;
/// Attempts that may fail before a split has failed.
const MAX_FAILURES: u32 = 4;
/// Attempts that may be lost with their machines before a split has failed.
const MAX_LOSSES: u32 = 20;
/// Attempts over which the median is taken.
const RATES: usize = 63;
/// A smaller split takes as long as one of this many bytes.
const MIN_BYTES: u64 = 1 << 16;
/// An attempt takes at most this long before any has ended.
const FIRST_DEADLINE: Duration = Duration::from_hours(1);
/// An attempt may always take this long.
const MIN_DEADLINE: Duration = Duration::from_mins(5);
/// Each failure doubles the deadline, up to this often.
const MAX_DOUBLINGS: u32 = 6;
/// An attempt is never repeated sooner.
const MIN_STRAGGLER: Duration = Duration::from_secs(1);
/// No attempt is expected to take longer, however large its split.
const MAX_EXPECTED: Duration = Duration::from_hours(7 * 24);
/// Checked splits of which one in [`MAX_HIT_SHARE`] may have a repeated id, while rows are requested before ids.
const MIN_HITS: usize = 2;
const MAX_HIT_SHARE: usize = 20;

/// How ids of different splits are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IdCheck {
    /// Not at all: no two rows can have one id.
    Unneeded,
    /// After the rows, because repeated ids are rare.
    AfterRows,
    /// Before the rows.
    BeforeRows,
}

/// An attempt to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Attempt {
    pub(crate) split: usize,
    /// Its number among those of the split.
    pub(crate) number: u32,
    pub(crate) kind: TaskKind,
}

/// What becomes of the result of an attempt.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Whether it is the result of its split.
    pub(crate) accepted: bool,
    /// Whether its ids are those to compare with the ids of other splits.
    pub(crate) has_ids: bool,
    /// Attempts that are no longer needed.
    pub(crate) cancelled: Vec<Attempt>,
}

/// A split whose rows may be committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ready {
    pub(crate) split: usize,
    /// When the attempt with its rows was started: its files are younger.
    pub(crate) started: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ids {
    Unknown,
    /// Known, and not yet compared with those of earlier splits.
    Known,
    Checked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Running {
    attempt: Attempt,
    started: Duration,
}

#[derive(Debug)]
struct Split {
    bytes: u64,
    ids: Ids,
    /// When the attempt that has its rows was started; `None` without rows.
    rows: Option<Duration>,
    /// Attempts before this one did not know that ids of the split are taken, or their files are gone.
    valid_from: u32,
    next_attempt: u32,
    /// Errors and losses since its last result.
    failures: u32,
    losses: u32,
    is_permanent: bool,
    running: Vec<Running>,
}

impl Split {
    /// Whether no further attempt is worth it. Those in flight may still succeed.
    fn is_given_up(&self) -> bool {
        self.is_permanent || self.failures >= MAX_FAILURES || self.losses >= MAX_LOSSES
    }
}

/// The state of all splits of a run.
#[derive(Debug)]
pub(crate) struct Order {
    check: IdCheck,
    splits: Vec<Split>,
    slots: usize,
    running: usize,
    /// The splits before this one include all that had an attempt.
    attempted: usize,
    next_check: usize,
    next_release: usize,
    /// Splits with an id of an earlier one.
    hits: usize,
    /// Seconds per byte of the last attempts that embedded a split.
    rates: VecDeque<f64>,
    /// The first split that has failed; no later one is requested.
    failed: Option<usize>,
    is_stopped: bool,
}

impl Order {
    /// Splits of these sizes in bytes.
    pub(crate) fn new(sizes: impl Iterator<Item = u64>, check: IdCheck) -> Self {
        let ids = if check == IdCheck::Unneeded { Ids::Checked } else { Ids::Unknown };
        let split = |bytes: u64| Split {
            bytes: bytes.max(MIN_BYTES),
            ids,
            rows: None,
            valid_from: 0,
            next_attempt: 0,
            failures: 0,
            losses: 0,
            is_permanent: false,
            running: Vec::new(),
        };
        let splits: Vec<Split> = sizes.map(split).collect();
        Self {
            check,
            slots: 0,
            running: 0,
            attempted: 0,
            next_check: if check == IdCheck::Unneeded { splits.len() } else { 0 },
            next_release: 0,
            hits: 0,
            rates: VecDeque::new(),
            failed: None,
            is_stopped: false,
            splits,
        }
    }

    /// The number of tasks that the cluster runs at the same time.
    pub(crate) fn set_slots(&mut self, slots: usize) {
        self.slots = slots;
    }

    /// From now on nothing is requested.
    pub(crate) fn stop(&mut self) {
        self.is_stopped = true;
    }

    /// The next attempt to start, if any: that of the first split that needs one, else another one of a split that
    /// takes long while slots are free.
    pub(crate) fn next_attempt(&mut self, now: Duration) -> Option<Attempt> {
        if self.is_stopped || self.running >= self.slots * IN_FLIGHT_PER_SLOT {
            return None;
        }
        let wanted = self.wanted();
        let new = wanted.clone().find_map(|at| {
            let kind = self.needed(at)?;
            self.splits[at].running.is_empty().then_some((at, kind))
        });
        let (split, kind) = new.or_else(|| self.straggler(wanted, now))?;
        let attempt = Attempt { split, number: self.splits[split].next_attempt, kind };
        self.splits[split].next_attempt += 1;
        self.splits[split].running.push(Running { attempt, started: now });
        self.running += 1;
        self.attempted = self.attempted.max(split + 1);
        Some(attempt)
    }

    /// The splits that may be requested.
    fn wanted(&self) -> std::ops::Range<usize> {
        let window = self.next_release + self.slots * WINDOW_PER_SLOT;
        self.next_release..window.min(self.failed.unwrap_or(self.splits.len()))
    }

    fn needed(&self, at: usize) -> Option<TaskKind> {
        let split = &self.splits[at];
        match split.ids {
            _ if split.rows.is_some() || split.is_given_up() => None,
            Ids::Unknown if self.check == IdCheck::BeforeRows => Some(TaskKind::Ids),
            Ids::Unknown | Ids::Checked => Some(TaskKind::Rows),
            Ids::Known => None,
        }
    }

    fn straggler(&self, mut wanted: std::ops::Range<usize>, now: Duration) -> Option<(usize, TaskKind)> {
        if self.running >= self.slots {
            return None;
        }
        let rate = self.median_rate();
        wanted.find_map(|at| {
            let [running] = self.splits[at].running[..] else { return None };
            let kind = self.needed(at).filter(|kind| *kind == running.attempt.kind)?;
            // The machine of the first tasks may be lost before any has ended.
            let long = rate.map_or(MIN_DEADLINE, |rate| (self.expected(at, rate) * 2).max(MIN_STRAGGLER));
            (now.saturating_sub(running.started) > long).then_some((at, kind))
        })
    }

    /// Takes the result of an attempt.
    pub(crate) fn done(&mut self, attempt: Attempt, now: Duration) -> Taken {
        let refused = Taken { accepted: false, has_ids: false, cancelled: Vec::new() };
        let Some(running) = self.remove(attempt) else { return refused };
        let split = &mut self.splits[attempt.split];
        let accepted = match attempt.kind {
            TaskKind::Rows => split.rows.is_none() && attempt.number >= split.valid_from,
            TaskKind::Ids => split.ids == Ids::Unknown,
        };
        if !accepted {
            return refused;
        }
        (split.failures, split.losses, split.is_permanent) = (0, 0, false);
        let has_ids = split.ids == Ids::Unknown;
        if has_ids {
            split.ids = Ids::Known;
        }
        if attempt.kind == TaskKind::Rows {
            split.rows = Some(running.started);
            self.rates.push_back(now.saturating_sub(running.started).as_secs_f64() / split.bytes as f64);
            if self.rates.len() > RATES {
                self.rates.pop_front();
            }
        }
        Taken { accepted, has_ids, cancelled: self.cancel(attempt.split) }
    }

    /// An attempt ended with an error. Returns whether the split has failed.
    pub(crate) fn failed(&mut self, attempt: Attempt, may_succeed: bool) -> bool {
        if self.remove(attempt).is_none() {
            return false;
        }
        let split = &mut self.splits[attempt.split];
        split.failures += 1;
        split.is_permanent |= !may_succeed;
        self.settle(attempt.split)
    }

    /// An attempt was lost with its machine, or with the scheduler. Returns whether the split has failed.
    pub(crate) fn lost(&mut self, attempt: Attempt) -> bool {
        if self.remove(attempt).is_none() {
            return false;
        }
        self.splits[attempt.split].losses += 1;
        self.settle(attempt.split)
    }

    /// Whether an attempt of the split ended with an error that every attempt has.
    pub(crate) fn has_permanent_error(&self, split: usize) -> bool {
        self.splits[split].is_permanent
    }

    /// An attempt could not be submitted.
    pub(crate) fn withdrawn(&mut self, attempt: Attempt) {
        self.remove(attempt);
    }

    /// Fails a split that is given up and has no attempt in flight, and returns whether it has failed.
    fn settle(&mut self, at: usize) -> bool {
        let split = &self.splits[at];
        let has_failed = split.is_given_up() && split.running.is_empty();
        if has_failed {
            self.failed = Some(self.failed.map_or(at, |failed| failed.min(at)));
        }
        has_failed
    }

    fn remove(&mut self, attempt: Attempt) -> Option<Running> {
        let running = &mut self.splits[attempt.split].running;
        let at = running.iter().position(|running| running.attempt == attempt)?;
        self.running -= 1;
        Some(running.swap_remove(at))
    }

    /// Forgets the attempts of a split.
    fn cancel(&mut self, split: usize) -> Vec<Attempt> {
        let cancelled = std::mem::take(&mut self.splits[split].running);
        self.running -= cancelled.len();
        cancelled.into_iter().map(|running| running.attempt).collect()
    }

    /// Forgets all attempts.
    pub(crate) fn cancel_all(&mut self) -> Vec<Attempt> {
        (0..self.splits.len()).flat_map(|split| self.cancel(split)).collect()
    }

    /// The split whose ids are to be compared with those of all before it.
    pub(crate) fn to_check(&self) -> Option<usize> {
        let split = self.splits.get(self.next_check)?;
        (split.ids == Ids::Known).then_some(self.next_check)
    }

    /// The ids of the split were compared; `taken` of them belong to earlier splits. Rows that were embedded without
    /// knowing that are dropped. Returns the attempts that are no longer needed.
    pub(crate) fn checked(&mut self, taken: usize) -> Vec<Attempt> {
        let at = self.next_check;
        self.next_check += 1;
        self.splits[at].ids = Ids::Checked;
        if taken == 0 {
            return Vec::new();
        }
        self.hits += 1;
        if self.hits > MIN_HITS && self.hits * MAX_HIT_SHARE > self.next_check {
            self.check = IdCheck::BeforeRows;
        }
        self.drop_rows(at);
        self.cancel(at)
    }

    fn drop_rows(&mut self, at: usize) {
        let split = &mut self.splits[at];
        split.rows = None;
        split.valid_from = split.next_attempt;
    }

    /// The next split in order, if its rows may be committed.
    pub(crate) fn to_release(&self) -> Option<Ready> {
        let split = self.splits.get(self.next_release).filter(|split| split.ids == Ids::Checked)?;
        Some(Ready { split: self.next_release, started: split.rows? })
    }

    /// The rows of the split to release are sent.
    pub(crate) fn released(&mut self) {
        self.next_release += 1;
    }

    /// The files of the split to release are gone: it is embedded again.
    pub(crate) fn embed_again(&mut self) {
        self.drop_rows(self.next_release);
    }

    /// Whether nothing is left to wait for: all splits are released, or those before the one that has failed, or the
    /// run was stopped, no attempt is in flight and no split can be released.
    pub(crate) fn is_over(&self) -> bool {
        let is_done = self.next_release == self.failed.unwrap_or(self.splits.len());
        is_done || self.is_stopped && self.running == 0 && self.to_release().is_none()
    }

    /// Whether all splits are released.
    pub(crate) fn is_complete(&self) -> bool {
        self.next_release == self.splits.len()
    }

    /// The first split that has failed, once all before it are released.
    pub(crate) fn failed_split(&self) -> Option<usize> {
        self.failed.filter(|failed| *failed == self.next_release)
    }

    /// Attempts that take longer than others did: their results may be there without a message.
    pub(crate) fn late(&self, now: Duration) -> Vec<Attempt> {
        let rate = self.median_rate();
        self.running_longer(now, |at| rate.map_or(MIN_DEADLINE, |rate| self.expected(at, rate) * 2))
    }

    /// Attempts that take too long. An attempt may wait for another one to end before it begins.
    pub(crate) fn overdue(&self, now: Duration) -> Vec<Attempt> {
        let Some(rate) = self.median_rate() else {
            return self.running_longer(now, |at| self.doubled(at, FIRST_DEADLINE));
        };
        let largest = self.in_flight().max_by_key(|at| self.splits[*at].bytes);
        let wait = largest.map_or(Duration::ZERO, |at| self.expected(at, rate));
        self.running_longer(now, |at| self.doubled(at, (self.expected(at, rate) * 5).max(MIN_DEADLINE) + wait))
    }

    /// A deadline, doubled for each failure of a split.
    fn doubled(&self, at: usize, deadline: Duration) -> Duration {
        deadline * 2_u32.pow(self.splits[at].failures.min(MAX_DOUBLINGS))
    }

    fn running_longer(&self, now: Duration, limit: impl Fn(usize) -> Duration) -> Vec<Attempt> {
        let is_long = |running: &&Running| now.saturating_sub(running.started) > limit(running.attempt.split);
        let running = self.in_flight().flat_map(|at| &self.splits[at].running);
        running.filter(is_long).map(|running| running.attempt).collect()
    }

    /// The splits with attempts in flight.
    fn in_flight(&self) -> impl Iterator<Item = usize> {
        let attempted = self.next_release..self.attempted.max(self.next_release);
        attempted.filter(|at| !self.splits[*at].running.is_empty())
    }

    /// How long an attempt of a split takes, by its size.
    fn expected(&self, at: usize, rate: f64) -> Duration {
        Duration::from_secs_f64((rate * self.splits[at].bytes as f64).min(MAX_EXPECTED.as_secs_f64()))
    }

    /// Seconds per byte.
    fn median_rate(&self) -> Option<f64> {
        let mut rates: Vec<f64> = self.rates.iter().copied().collect();
        rates.sort_unstable_by(f64::total_cmp);
        rates.get(rates.len() / 2).copied()
    }
}
