//! A model of the commit protocol: runs, deletions, annotations, compaction and cleanup take their steps in thousands
//! of orders, and each may end at any step. Of Lance it models only versions and the conflicts between commits.
//!
//! Each rule of the protocol can be left out; the model then finds the fault that the rule prevents.

use std::collections::{BTreeMap, BTreeSet};

/// The rules, each of which can be left out.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "a rule is kept or left out")]
struct Rules {
    /// A commit gives the columns of its files the field ids that the table has for their names.
    remapped_fields: bool,
    /// Commits that add rows conflict with each other.
    row_conflicts: bool,
    /// A window without rows counts no version as the run's own.
    own_versions: bool,
    /// A commit checks that its files still exist.
    files_checked: bool,
}

const ALL: Rules = Rules { remapped_fields: true, row_conflicts: true, own_versions: true, files_checked: true };

/// The faults that the model checks for after each step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    /// A version has a document twice.
    Duplicate,
    /// A column has the values of another.
    Swapped,
    /// A version refers to a missing file.
    FileMissing,
    /// The manifest claims that the table has all rows of a source, and it has not.
    WrongManifest,
}

type Column = char;
type Document = u8;

/// A data file: for each field id, the column of its values.
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
    adds_rows: bool,
    deletes_rows: bool,
}

#[derive(Debug, Default)]
struct World {
    versions: Vec<Version>,
    files: Vec<DataFile>,
    fragments: usize,
    /// The version at which the source was recorded as complete.
    manifest: Option<usize>,
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

    /// Whether the manifest is valid: no later version deleted rows.
    fn manifest_is_valid(&self) -> bool {
        self.manifest.is_some_and(|since| self.versions[since + 1..].iter().all(|version| !version.deletes_rows))
    }

    fn fault(&self) -> Option<Fault> {
        let latest = self.latest()?;
        let version = &self.versions[latest];
        let documents = self.documents(latest);
        let distinct: BTreeSet<_> = documents.iter().collect();
        if distinct.len() < documents.len() {
            return Some(Fault::Duplicate);
        }
        for file in version.fragments.iter().flat_map(|fragment| &fragment.files).map(|file| &self.files[*file]) {
            if !file.exists {
                return Some(Fault::FileMissing);
            }
            if file.fields.iter().any(|(id, column)| version.schema.get(*id) != Some(column)) {
                return Some(Fault::Swapped);
            }
        }
        (self.manifest_is_valid() && !SOURCE.iter().all(|document| distinct.contains(document)))
            .then_some(Fault::WrongManifest)
    }
}

/// The documents of every run's source.
const SOURCE: [Document; 3] = [1, 2, 3];

/// The state of an actor.
#[derive(Debug, Clone)]
enum Actor {
    Run(Run),
    /// Deletes a document: the version that it has read, then its commit.
    Deletion(Option<usize>),
    /// Merges all fragments: the version that it has read, then its commit.
    Compaction(Option<usize>),
    /// Adds a column, with a file for each fragment: the version that it has read, then its commit.
    Annotation(Option<usize>),
    /// Removes orphaned files.
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
    RecordManifest,
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
                (version.adds_rows, version.deletes_rows) = (false, true);
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
                let version = Version { fragments: vec![merged], adds_rows: false, deletes_rows: false, ..old };
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
                (version.adds_rows, version.deletes_rows) = (false, false);
                match commit(world, read, version, &touched, rules) {
                    Ok(_) => Self::Done,
                    Err(()) => Self::Annotation(None),
                }
            }
            Self::Cleanup => {
                let referenced: BTreeSet<usize> = world
                    .versions
                    .iter()
                    .flat_map(|version| &version.fragments)
                    .flat_map(|fragment| fragment.files.clone())
                    .collect();
                for (number, file) in world.files.iter_mut().enumerate() {
                    file.exists &= referenced.contains(&number);
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
                let existing = self.opened.map(|opened| world.documents(opened)).unwrap_or_default();
                let documents: Vec<_> = SOURCE.into_iter().filter(|document| !existing.contains(document)).collect();
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
                Step::RecordManifest
            }
            Step::RecordManifest => {
                let since = self.opened.map_or(0, |opened| opened + 1);
                let foreign = (since..world.versions.len()).filter(|version| !self.own.contains(version));
                if foreign.into_iter().all(|version| !world.versions[version].deletes_rows) {
                    world.manifest = world.latest();
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
            // The commit creates a table, and fails when there is one.
            if !world.versions.is_empty() {
                return Err(());
            }
            let schema = self.columns.to_vec();
            world.versions.push(Version { schema, fragments: vec![fragment], adds_rows: true, deletes_rows: false });
            return Ok(world.latest());
        };
        let mut version = world.versions[read].clone();
        if rules.remapped_fields {
            let id_of = |column: &Column| version.schema.iter().position(|name| name == column);
            let columns = world.files[file].fields.values();
            world.files[file].fields = columns.filter_map(|column| Some((id_of(column)?, *column))).collect();
        }
        let mut touched = BTreeSet::new();
        let mut deletes_rows = false;
        for older in &mut version.fragments {
            let before = older.documents.len();
            older.documents.retain(|document| !documents.contains(document));
            if older.documents.len() < before {
                deletes_rows = true;
                touched.insert(older.id);
            }
        }
        version.fragments.push(fragment);
        (version.adds_rows, version.deletes_rows) = (true, deletes_rows);
        commit(world, read, version, &touched, rules).map(Some)
    }
}

/// Applies a commit that was made on version `read` to the latest version, unless a commit since then conflicts.
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
        if rules.row_conflicts && version.adds_rows && other.adds_rows {
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

/// Pseudo-random numbers from a seed.
fn draw(state: &mut u64, below: usize) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as usize % below
}

/// Plays one order of steps; returns the first fault.
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
        // One in forty ends at this step.
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
fn protocol_has_no_fault_in_any_order() {
    let orders = std::env::var("POLYLANCE_ORDERS").map_or(4_000, |orders| orders.parse().unwrap());
    assert_eq!(faults(ALL, orders), BTreeSet::new());
}

#[test]
fn each_rule_of_the_protocol_is_needed() {
    for (rules, fault) in [
        (Rules { remapped_fields: false, ..ALL }, Fault::Swapped),
        (Rules { row_conflicts: false, ..ALL }, Fault::Duplicate),
        (Rules { own_versions: false, ..ALL }, Fault::WrongManifest),
        (Rules { files_checked: false, ..ALL }, Fault::FileMissing),
    ] {
        assert_eq!(faults(rules, 4_000), BTreeSet::from([fault]), "{rules:?}");
    }
}
