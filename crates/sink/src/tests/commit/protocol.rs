//! A model of the commit protocol: runs, deletions, annotations, compaction and cleanup take their steps in thousands of orders, and
//! each may end at any of them. It knows nothing of Lance but what a version is and which commits exclude each other.
//!
//! Each rule of the protocol can be left out; the model then finds what the rule is for.

use std::collections::{BTreeMap, BTreeSet};

/// The rules, each of which can be left out.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "a rule is kept or left out")]
struct Rules {
    /// A commit gives the columns of its files the field ids that the table has for their names.
    fitted_fields: bool,
    /// Commits that bring rows exclude each other.
    claims: bool,
    /// A window without rows counts no version as the run's own.
    own_versions: bool,
    /// A commit looks whether its files are still there.
    files_checked: bool,
}

const ALL: Rules = Rules { fitted_fields: true, claims: true, own_versions: true, files_checked: true };

/// What the model checks after each step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    /// A document stands twice in a version.
    Twice,
    /// A column holds the values of another.
    Swapped,
    /// A version names a file that is not there.
    FileMissing,
    /// A note says that the table has all rows of a source, and it has not.
    NoteUntrue,
}

type Column = char;
type Document = u8;

/// A data file: for each field id, of which column the values are.
#[derive(Debug, Clone)]
struct DataFile {
    fields: BTreeMap<usize, Column>,
    exists: bool,
}

#[derive(Debug, Clone)]
struct Fragment {
    id: usize,
    files: Vec<usize>,
    documents: Vec<Document>,
}

#[derive(Debug, Clone)]
struct Version {
    /// Names, by field id.
    schema: Vec<Column>,
    fragments: Vec<Fragment>,
    brings_rows: bool,
    takes_rows: bool,
}

#[derive(Debug, Default)]
struct World {
    versions: Vec<Version>,
    files: Vec<DataFile>,
    fragments: usize,
    /// After which version the source is finished.
    note: Option<usize>,
}

impl World {
    fn latest(&self) -> Option<usize> {
        self.versions.len().checked_sub(1)
    }

    fn write(&mut self, schema: &[Column]) -> usize {
        self.files.push(DataFile { fields: schema.iter().copied().enumerate().collect(), exists: true });
        self.files.len() - 1
    }

    fn fragment(&mut self, files: Vec<usize>, documents: Vec<Document>) -> Fragment {
        self.fragments += 1;
        Fragment { id: self.fragments, files, documents }
    }

    fn documents(&self, version: usize) -> Vec<Document> {
        self.versions[version].fragments.iter().flat_map(|fragment| fragment.documents.clone()).collect()
    }

    /// Whether the note stands: nothing took rows since.
    fn note_stands(&self) -> bool {
        self.note.is_some_and(|since| self.versions[since + 1..].iter().all(|version| !version.takes_rows))
    }

    fn fault(&self) -> Option<Fault> {
        let latest = self.latest()?;
        let version = &self.versions[latest];
        let documents = self.documents(latest);
        let distinct: BTreeSet<_> = documents.iter().collect();
        if distinct.len() < documents.len() {
            return Some(Fault::Twice);
        }
        for file in version.fragments.iter().flat_map(|fragment| &fragment.files).map(|file| &self.files[*file]) {
            if !file.exists {
                return Some(Fault::FileMissing);
            }
            if file.fields.iter().any(|(id, column)| version.schema.get(*id) != Some(column)) {
                return Some(Fault::Swapped);
            }
        }
        (self.note_stands() && !SOURCE.iter().all(|document| distinct.contains(document))).then_some(Fault::NoteUntrue)
    }
}

/// The documents of every run's source.
const SOURCE: [Document; 3] = [1, 2, 3];

/// Where an actor is.
#[derive(Debug, Clone)]
enum Actor {
    Run(Run),
    /// Takes a document out: what it has read, then its commit.
    Deletion(Option<usize>),
    /// Merges all fragments: what it has read, then its commit.
    Compaction(Option<usize>),
    /// Adds a column, with a file for each fragment: what it has read, then its commit.
    Annotation(Option<usize>),
    /// Removes files that no version names.
    Cleanup,
    Done,
}

#[derive(Debug, Clone)]
struct Run {
    columns: [Column; 2],
    step: Step,
    /// The version it has opened.
    opened: Option<usize>,
    own: BTreeSet<usize>,
}

#[derive(Debug, Clone)]
enum Step {
    Open,
    Write,
    /// With a file for these documents; the first two windows, then a last one without rows.
    Look(usize, Vec<Document>),
    Commit(usize, Vec<Document>, Option<usize>),
    EmptyWindow,
    Finish,
}

impl Actor {
    fn run(columns: [Column; 2]) -> Self {
        Self::Run(Run { columns, step: Step::Open, opened: None, own: BTreeSet::new() })
    }

    /// Takes one step; an actor that is done takes none.
    fn step(self, world: &mut World, rules: Rules) -> Self {
        match self {
            Self::Run(run) => run.step(world, rules),
            Self::Deletion(None) => world.latest().map_or(Self::Done, |read| Self::Deletion(Some(read))),
            Self::Deletion(Some(read)) => {
                let mut version = world.versions[read].clone();
                let Some(fragment) = version.fragments.iter_mut().find(|fragment| fragment.documents.contains(&2))
                else {
                    return Self::Done;
                };
                fragment.documents.retain(|document| *document != 2);
                let touched = BTreeSet::from([fragment.id]);
                (version.brings_rows, version.takes_rows) = (false, true);
                match commit(world, read, version, &touched, rules) {
                    Ok(_) => Self::Done,
                    Err(()) => Self::Deletion(None),
                }
            }
            Self::Compaction(None) => world.latest().map_or(Self::Done, |read| Self::Compaction(Some(read))),
            Self::Compaction(Some(read)) => {
                let old = world.versions[read].clone();
                let file = world.write(&old.schema);
                let merged = world.fragment(vec![file], world.documents(read));
                let touched = old.fragments.iter().map(|fragment| fragment.id).collect();
                let version = Version { fragments: vec![merged], brings_rows: false, takes_rows: false, ..old };
                let merged = commit(world, read, version, &touched, rules);
                if merged.is_err() { Self::Compaction(None) } else { Self::Done }
            }
            Self::Annotation(None) => world.latest().map_or(Self::Done, |read| Self::Annotation(Some(read))),
            Self::Annotation(Some(read)) => {
                let mut version = world.versions[read].clone();
                version.schema.push('n');
                let column = version.schema.len() - 1;
                for fragment in &mut version.fragments {
                    let file = world.write(&[]);
                    world.files[file].fields.insert(column, 'n');
                    fragment.files.push(file);
                }
                let touched = version.fragments.iter().map(|fragment| fragment.id).collect();
                (version.brings_rows, version.takes_rows) = (false, false);
                match commit(world, read, version, &touched, rules) {
                    Ok(_) => Self::Done,
                    Err(()) => Self::Annotation(None),
                }
            }
            Self::Cleanup => {
                let named: BTreeSet<usize> = world
                    .versions
                    .iter()
                    .flat_map(|version| &version.fragments)
                    .flat_map(|fragment| fragment.files.clone())
                    .collect();
                for (number, file) in world.files.iter_mut().enumerate() {
                    file.exists &= named.contains(&number);
                }
                Self::Done
            }
            Self::Done => Self::Done,
        }
    }
}

impl Run {
    fn step(mut self, world: &mut World, rules: Rules) -> Actor {
        self.step = match self.step.clone() {
            Step::Open => {
                self.opened = world.latest();
                Step::Write
            }
            Step::Write => {
                let there = self.opened.map(|opened| world.documents(opened)).unwrap_or_default();
                let documents: Vec<_> = SOURCE.into_iter().filter(|document| !there.contains(document)).collect();
                if documents.is_empty() {
                    Step::EmptyWindow
                } else {
                    let schema = match self.opened {
                        Some(opened) => world.versions[opened].schema.clone(),
                        None => self.columns.to_vec(),
                    };
                    Step::Look(world.write(&schema), documents)
                }
            }
            Step::Look(file, documents) => Step::Commit(file, documents, world.latest()),
            Step::Commit(file, documents, read) => match self.commit(world, rules, file, &documents, read) {
                Ok(Some(version)) => {
                    self.own.insert(version);
                    Step::EmptyWindow
                }
                // Its files are gone: the run ends with an error.
                Ok(None) => return Actor::Done,
                Err(()) => Step::Look(file, documents),
            },
            Step::EmptyWindow => {
                if !rules.own_versions {
                    self.own.extend(world.latest());
                }
                Step::Finish
            }
            Step::Finish => {
                let since = self.opened.map_or(0, |opened| opened + 1);
                let foreign = (since..world.versions.len()).filter(|version| !self.own.contains(version));
                if foreign.into_iter().all(|version| !world.versions[version].takes_rows) {
                    world.note = world.latest();
                }
                return Actor::Done;
            }
        };
        Actor::Run(self)
    }

    fn commit(
        &self,
        world: &mut World,
        rules: Rules,
        file: usize,
        documents: &[Document],
        read: Option<usize>,
    ) -> Result<Option<usize>, ()> {
        if rules.files_checked && !world.files[file].exists {
            return Ok(None);
        }
        let fragment = world.fragment(vec![file], documents.to_vec());
        let Some(read) = read else {
            // A table is created where none is, or the commit fails.
            if !world.versions.is_empty() {
                return Err(());
            }
            let schema = self.columns.to_vec();
            world.versions.push(Version { schema, fragments: vec![fragment], brings_rows: true, takes_rows: false });
            return Ok(world.latest());
        };
        let mut version = world.versions[read].clone();
        if rules.fitted_fields {
            let id_of = |column: &Column| version.schema.iter().position(|name| name == column);
            let columns = world.files[file].fields.values();
            world.files[file].fields = columns.filter_map(|column| Some((id_of(column)?, *column))).collect();
        }
        let mut touched = BTreeSet::new();
        let mut takes_rows = false;
        for older in &mut version.fragments {
            let before = older.documents.len();
            older.documents.retain(|document| !documents.contains(document));
            if older.documents.len() < before {
                takes_rows = true;
                touched.insert(older.id);
            }
        }
        version.fragments.push(fragment);
        (version.brings_rows, version.takes_rows) = (true, takes_rows);
        commit(world, read, version, &touched, rules).map(Some)
    }
}

/// Commits what was made of version `read`, unless another commit since then excludes it; else it is applied to the
/// latest version.
fn commit(
    world: &mut World,
    read: usize,
    version: Version,
    touched: &BTreeSet<usize>,
    rules: Rules,
) -> Result<usize, ()> {
    let ids = |version: &Version| version.fragments.iter().map(|fragment| fragment.id).collect::<BTreeSet<_>>();
    let before = world.versions[read].clone();
    let latest = world.versions[world.versions.len() - 1].clone();
    for other in &world.versions[read + 1..] {
        if rules.claims && version.brings_rows && other.brings_rows {
            return Err(());
        }
    }
    // A fragment that this commit changes or replaces must be as it was read.
    let unchanged = |id: &usize| {
        let of = |version: &Version| {
            version.fragments.iter().find(|fragment| fragment.id == *id).map(|f| f.documents.clone())
        };
        of(&before) == of(&latest)
    };
    if !touched.iter().all(unchanged) {
        return Err(());
    }
    let (old, new) = (ids(&before), ids(&version));
    let mut fragments: Vec<Fragment> = latest
        .fragments
        .iter()
        .filter(|fragment| !old.contains(&fragment.id) || new.contains(&fragment.id))
        .map(|fragment| {
            let changed = version.fragments.iter().find(|changed| changed.id == fragment.id);
            changed.filter(|_| touched.contains(&fragment.id)).unwrap_or(fragment).clone()
        })
        .collect();
    fragments.extend(version.fragments.iter().filter(|fragment| !old.contains(&fragment.id)).cloned());
    let schema = if version.schema.len() > latest.schema.len() { version.schema } else { latest.schema };
    world.versions.push(Version { schema, fragments, ..version });
    Ok(world.versions.len() - 1)
}

/// Numbers that a seed decides.
fn draw(state: &mut u64, below: usize) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as usize % below
}

/// One order of steps; the fault that it meets.
fn play(seed: u64, rules: Rules) -> Option<Fault> {
    let mut state = seed;
    let mut world = World::default();
    let mut actors = [
        Actor::run(['l', 't']),
        Actor::run(['t', 'l']),
        Actor::run(['l', 't']),
        Actor::Deletion(None),
        Actor::Compaction(None),
        Actor::Annotation(None),
        Actor::Cleanup,
    ];
    for _ in 0..60 {
        let chosen = draw(&mut state, actors.len());
        let actor = std::mem::replace(&mut actors[chosen], Actor::Done);
        // One in forty ends here and now.
        actors[chosen] = if draw(&mut state, 40) == 0 { Actor::Done } else { actor.step(&mut world, rules) };
        if let Some(fault) = world.fault() {
            return Some(fault);
        }
    }
    None
}

fn faults(rules: Rules, orders: u64) -> BTreeSet<Fault> {
    (0..orders).filter_map(|seed| play(seed, rules)).collect()
}

#[test]
fn the_protocol_keeps_its_promises_in_every_order() {
    let orders = std::env::var("POLYLANCE_ORDERS").map_or(4_000, |orders| orders.parse().unwrap());
    assert_eq!(faults(ALL, orders), BTreeSet::new());
}

#[test]
fn each_rule_of_the_protocol_is_needed() {
    for (rules, fault) in [
        (Rules { fitted_fields: false, ..ALL }, Fault::Swapped),
        (Rules { claims: false, ..ALL }, Fault::Twice),
        (Rules { own_versions: false, ..ALL }, Fault::NoteUntrue),
        (Rules { files_checked: false, ..ALL }, Fault::FileMissing),
    ] {
        assert_eq!(faults(rules, 4_000), BTreeSet::from([fault]), "{rules:?}");
    }
}
