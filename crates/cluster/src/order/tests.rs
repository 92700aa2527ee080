use std::collections::{BTreeMap, BTreeSet, HashSet};

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Splits of one size.
fn equal_splits(splits: usize, check: IdCheck) -> Order {
    Order::new((0..splits).map(|_| MIN_BYTES), check)
}

/// Releases the next split, if it can be.
fn release(order: &mut Order) -> Option<usize> {
    let Ready { split, .. } = order.to_release()?;
    order.released();
    Some(split)
}

fn attempts(order: &mut Order, now: Duration) -> Vec<(usize, u32, TaskKind)> {
    std::iter::from_fn(|| order.next_attempt(now)).map(|a| (a.split, a.number, a.kind)).collect()
}

fn rows(split: usize, number: u32) -> Attempt {
    Attempt { split, number, kind: TaskKind::Rows }
}

#[test]
fn tasks_in_flight_are_twice_the_slots_and_the_window_is_limited() {
    let mut order = equal_splits(100, IdCheck::Unneeded);
    assert_eq!(attempts(&mut order, SECOND), []);
    order.set_slots(2);
    let first: Vec<usize> = attempts(&mut order, SECOND).iter().map(|attempt| attempt.0).collect();
    assert_eq!(first, [0, 1, 2, 3]);
    // All but the first end: results wait for it until the window is full.
    let mut next = 4;
    for split in 1..12 {
        assert!(order.done(rows(split, 0), 2 * SECOND).accepted);
        for attempt in attempts(&mut order, 2 * SECOND) {
            assert_eq!(attempt, (next, 0, TaskKind::Rows));
            next += 1;
        }
    }
    assert_eq!((next, release(&mut order)), (12, None));
    assert!(order.done(rows(0, 0), 2 * SECOND).accepted);
    assert!((0..12).all(|split| release(&mut order) == Some(split)) && release(&mut order).is_none());
}

#[test]
fn a_straggler_gets_a_second_attempt_when_slots_are_free_and_the_first_result_counts() {
    let mut order = equal_splits(3, IdCheck::Unneeded);
    order.set_slots(3);
    assert_eq!(attempts(&mut order, Duration::ZERO).len(), 3);
    for split in [1, 2] {
        order.done(rows(split, 0), SECOND);
    }
    assert_eq!(attempts(&mut order, 2 * SECOND), []);
    assert_eq!(attempts(&mut order, 3 * SECOND), [(0, 1, TaskKind::Rows)]);
    assert_eq!(attempts(&mut order, 9 * SECOND), [], "one more attempt, and then none");
    let taken = order.done(rows(0, 1), 4 * SECOND);
    assert_eq!(taken, Taken { accepted: true, has_ids: false, cancelled: vec![rows(0, 0)] });
    assert!(!order.done(rows(0, 0), 5 * SECOND).accepted, "the late result of a cancelled attempt");
}

#[test]
fn first_attempts_that_take_long_get_a_second_one_before_any_has_ended() {
    let mut order = equal_splits(2, IdCheck::Unneeded);
    order.set_slots(3);
    assert_eq!(attempts(&mut order, Duration::ZERO).len(), 2);
    assert_eq!(attempts(&mut order, MIN_DEADLINE), []);
    assert_eq!(attempts(&mut order, MIN_DEADLINE + SECOND), [(0, 1, TaskKind::Rows)], "one slot was free");
}

#[test]
fn late_attempts_are_those_over_twice_the_median_and_overdue_ones_over_five_times() {
    let mut order = equal_splits(2, IdCheck::Unneeded);
    order.set_slots(1);
    attempts(&mut order, Duration::ZERO);
    assert!(order.overdue(FIRST_DEADLINE).is_empty());
    assert_eq!(order.overdue(FIRST_DEADLINE + SECOND), [rows(0, 0), rows(1, 0)]);
    order.done(rows(0, 0), 100 * SECOND);
    // The second one may have waited for the first.
    assert!(order.late(200 * SECOND).is_empty() && order.overdue(600 * SECOND).is_empty());
    assert_eq!((order.late(201 * SECOND), order.overdue(601 * SECOND)), (vec![rows(1, 0)], vec![rows(1, 0)]));
    // A failure doubles the deadline.
    assert!(!order.failed(rows(1, 0), true));
    assert_eq!(attempts(&mut order, Duration::ZERO), [(1, 1, TaskKind::Rows)]);
    assert!(order.overdue(1200 * SECOND).is_empty());
    assert_eq!(order.overdue(1201 * SECOND), [rows(1, 1)]);
}

#[test]
fn a_large_split_may_take_longer() {
    let mut order = Order::new([1_u64, 10, 1].into_iter().map(|size| size << 20), IdCheck::Unneeded);
    order.set_slots(2);
    assert_eq!(attempts(&mut order, Duration::ZERO).len(), 3);
    order.done(rows(0, 0), 100 * SECOND);
    assert_eq!(order.late(201 * SECOND), [rows(2, 0)]);
    assert_eq!(order.late(2001 * SECOND), [rows(1, 0), rows(2, 0)]);
    // The small one may wait for the large one.
    assert!(order.overdue(1500 * SECOND).is_empty());
    assert_eq!(order.overdue(1501 * SECOND), [rows(2, 0)]);
    assert_eq!(order.overdue(6001 * SECOND), [rows(1, 0), rows(2, 0)]);
}

#[test]
fn a_split_fails_after_four_errors_or_a_permanent_one_and_those_before_it_are_released() {
    let mut order = equal_splits(4, IdCheck::Unneeded);
    order.set_slots(2);
    attempts(&mut order, SECOND);
    assert!(order.failed(rows(1, 0), false));
    assert!(!order.is_over());
    for number in 0..4 {
        assert_eq!(order.failed(rows(0, number), true), number == 3);
        attempts(&mut order, SECOND);
    }
    assert!(order.is_over() && !order.is_complete());
    assert_eq!(order.failed_split(), Some(0));

    let mut order = equal_splits(4, IdCheck::Unneeded);
    order.set_slots(2);
    attempts(&mut order, SECOND);
    assert!(order.failed(rows(1, 0), false));
    order.done(rows(0, 0), SECOND);
    assert_eq!((release(&mut order), release(&mut order)), (Some(0), None));
    assert_eq!((order.is_over(), order.failed_split()), (true, Some(1)));
}

#[test]
fn a_split_with_a_permanent_error_may_succeed_by_an_attempt_in_flight_and_gets_no_other() {
    for succeeds in [true, false] {
        let mut order = equal_splits(2, IdCheck::Unneeded);
        order.set_slots(3);
        assert_eq!(attempts(&mut order, Duration::ZERO).len(), 2);
        order.done(rows(1, 0), SECOND);
        assert_eq!(attempts(&mut order, 3 * SECOND), [(0, 1, TaskKind::Rows)]);
        assert!(!order.failed(rows(0, 0), false));
        assert!(order.has_permanent_error(0) && !order.has_permanent_error(1));
        assert_eq!(attempts(&mut order, 9 * SECOND), []);
        if succeeds {
            assert!(order.done(rows(0, 1), 9 * SECOND).accepted);
            assert_eq!((release(&mut order), release(&mut order)), (Some(0), Some(1)));
            assert!(order.is_over() && order.is_complete());
        } else {
            assert!(order.lost(rows(0, 1)));
            assert_eq!((order.is_over(), order.failed_split()), (true, Some(0)));
        }
    }
}

#[test]
fn a_split_whose_files_are_gone_is_embedded_again() {
    let mut order = equal_splits(2, IdCheck::Unneeded);
    order.set_slots(1);
    attempts(&mut order, SECOND);
    for split in [0, 1] {
        order.done(rows(split, 0), 2 * SECOND);
    }
    assert_eq!(order.to_release(), Some(Ready { split: 0, started: SECOND }));
    order.embed_again();
    assert_eq!(order.to_release(), None);
    assert_eq!(attempts(&mut order, 3 * SECOND), [(0, 1, TaskKind::Rows)]);
    assert!(order.done(rows(0, 1), 4 * SECOND).accepted);
    assert_eq!((release(&mut order), release(&mut order)), (Some(0), Some(1)));
}

#[test]
fn a_stopped_run_requests_nothing_and_is_over_when_nothing_is_in_flight() {
    let mut order = equal_splits(9, IdCheck::Unneeded);
    order.set_slots(1);
    attempts(&mut order, SECOND);
    order.stop();
    assert!(!order.is_over());
    order.done(rows(0, 0), SECOND);
    assert_eq!(attempts(&mut order, SECOND), []);
    assert_eq!(order.cancel_all(), [rows(1, 0)]);
    assert!(!order.is_over(), "rows are there that can be released");
    assert_eq!(release(&mut order), Some(0));
    assert!(order.is_over() && !order.is_complete());
}

#[test]
fn ids_come_first_once_repeated_ids_are_frequent() {
    let mut order = equal_splits(20, IdCheck::AfterRows);
    order.set_slots(1);
    let mut kinds = Vec::new();
    while !order.is_complete() {
        while let Some(attempt) = order.next_attempt(SECOND) {
            kinds.push(attempt.kind);
            order.done(attempt, SECOND);
        }
        while order.to_check().is_some() {
            order.checked(1);
        }
        while release(&mut order).is_some() {}
    }
    let first = kinds.iter().position(|kind| *kind == TaskKind::Ids).unwrap();
    // The first window was embedded twice.
    assert_eq!(first, 12, "{kinds:?}");
    assert_eq!(kinds.iter().filter(|kind| **kind == TaskKind::Ids).count(), 14);
}

/// What happens to an attempt in flight.
#[derive(Debug, Clone, Copy)]
enum Event {
    Done(usize),
    /// It ends well, and the files of the split to release are gone.
    Gone(usize),
    Fails(usize),
    FailsForGood(usize),
    Lost(usize),
    Cancelled,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0_usize..64).prop_map(Event::Done),
        1 => (0_usize..64).prop_map(Event::Gone),
        1 => (0_usize..64).prop_map(Event::Fails),
        1 => (0_usize..64).prop_map(Event::FailsForGood),
        1 => (0_usize..64).prop_map(Event::Lost),
        1 => Just(Event::Cancelled),
    ]
}

/// A driver whose splits are sets of ids: the rows of an attempt are the ids that it did not know to be taken.
struct Model {
    order: Order,
    splits: Vec<BTreeSet<u8>>,
    in_flight: Vec<(Attempt, BTreeSet<u8>)>,
    /// Attempts that were cancelled and end all the same.
    late: Vec<(Attempt, BTreeSet<u8>)>,
    seen: HashSet<u8>,
    taken: BTreeMap<usize, BTreeSet<u8>>,
    rows: BTreeMap<usize, BTreeSet<u8>>,
    released: Vec<BTreeSet<u8>>,
}

impl Model {
    fn start(&mut self, now: Duration) {
        while let Some(attempt) = self.order.next_attempt(now) {
            let taken = self.taken.get(&attempt.split).cloned().unwrap_or_default();
            self.in_flight.push((attempt, &self.splits[attempt.split] - &taken));
        }
    }

    fn forget(&mut self, cancelled: &[Attempt]) {
        let (late, in_flight) = std::mem::take(&mut self.in_flight).into_iter().partition(|a| cancelled.contains(&a.0));
        self.in_flight = in_flight;
        self.late = late;
    }

    fn finish(&mut self, (attempt, rows): (Attempt, BTreeSet<u8>), now: Duration) {
        self.take(attempt, rows, now);
        while let Some(split) = release(&mut self.order) {
            assert_eq!(split, self.released.len());
            self.released.push(self.rows.remove(&split).unwrap());
        }
    }

    fn take(&mut self, attempt: Attempt, rows: BTreeSet<u8>, now: Duration) {
        let Taken { accepted, has_ids: _, cancelled } = self.order.done(attempt, now);
        self.forget(&cancelled);
        if accepted {
            self.rows.insert(attempt.split, rows);
        }
        while let Some(split) = self.order.to_check() {
            let hits: BTreeSet<u8> = self.splits[split].iter().filter(|id| self.seen.contains(id)).copied().collect();
            self.seen.extend(&self.splits[split]);
            let cancelled = self.order.checked(hits.len());
            self.forget(&cancelled);
            self.taken.insert(split, hits);
        }
    }
}

proptest! {
    #[test]
    fn any_interleaving_releases_each_split_once_in_order_with_the_first_row_of_each_id(
        splits in prop::collection::vec(prop::collection::btree_set(0_u8..60, 0..6), 0..30),
        events in prop::collection::vec(event(), 0..80),
        slots in 1_usize..4,
        first in prop_oneof![Just(IdCheck::AfterRows), Just(IdCheck::BeforeRows)],
    ) {
        let order = equal_splits(splits.len(), first);
        let mut model = Model {
            order, splits: splits.clone(), in_flight: Vec::new(), late: Vec::new(), seen: HashSet::new(),
            taken: BTreeMap::new(), rows: BTreeMap::new(), released: Vec::new(),
        };
        model.order.set_slots(slots);
        let mut failed = false;
        let mut now = Duration::ZERO;
        let mut events = events.into_iter();
        // When the events are used up, everything in flight ends well.
        while !model.order.is_over() {
            now += SECOND;
            model.start(now);
            let event = events.next().unwrap_or(Event::Done(0));
            prop_assert!(!model.in_flight.is_empty());
            let at = |n: usize| n % model.in_flight.len();
            match event {
                Event::Done(n) => {
                    let done = model.in_flight.swap_remove(at(n));
                    model.finish(done, now);
                }
                Event::Gone(n) => {
                    let (attempt, rows) = model.in_flight.swap_remove(at(n));
                    model.take(attempt, rows, now);
                    if let Some(Ready { split, .. }) = model.order.to_release() {
                        model.order.embed_again();
                        model.rows.remove(&split);
                    }
                }
                Event::FailsForGood(n) => {
                    let (attempt, _) = model.in_flight.swap_remove(at(n));
                    failed |= model.order.failed(attempt, false);
                }
                Event::Fails(n) => {
                    let (attempt, _) = model.in_flight.swap_remove(at(n));
                    failed |= model.order.failed(attempt, true);
                }
                Event::Lost(n) => {
                    let (attempt, _) = model.in_flight.swap_remove(at(n));
                    failed |= model.order.lost(attempt);
                }
                Event::Cancelled => {
                    if let Some(late) = model.late.pop() {
                        model.finish(late, now);
                    }
                }
            }
        }
        prop_assert_eq!(model.order.is_complete(), model.released.len() == splits.len());
        prop_assert!(model.order.is_complete() || failed);
        let mut seen = HashSet::new();
        for (split, released) in splits.iter().zip(&model.released) {
            let first: BTreeSet<u8> = split.iter().filter(|id| !seen.contains(*id)).copied().collect();
            seen.extend(split.iter().copied());
            prop_assert_eq!(released, &first);
        }
    }
}
