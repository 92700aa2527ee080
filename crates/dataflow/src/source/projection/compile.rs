//! From the source's keys to a projection: each key is a column of the files, a partition, or SQL over both.

use std::{collections::HashSet, sync::Arc};

use arrow::datatypes::{DataType, FieldRef, Schema};

use super::{
    IdSource, KeptSource, Projection, ReadPlan, TextSource,
    expression::Expression,
    sql::{ParsedSql, ResolvedSql},
};
use crate::{
    error::{ColumnUse, SourceError},
    read::{
        columns::Columns,
        types::{
            FileTypes,
            exact::{is_id, is_text},
            widen::{plain_type, stored},
        },
    },
    source::{
        columns::{check_name, expect, expect_unique, find, missing, reserved},
        location::listing::Scope,
        partitions::Partitions,
        spec::{CONTENT_ID, ROW_ID, SourceSpec},
    },
};

/// A key whose value is a column or SQL.
#[derive(Debug)]
struct Key {
    /// `text`, or `keep[2]`.
    name: String,
    value: String,
    parsed: Result<ParsedSql, String>,
}

/// The keys of a source, parsed before its columns are known.
#[derive(Debug)]
pub(crate) struct Keys {
    id: Key,
    text: Key,
    keep: Vec<Key>,
    /// Whether the only key to keep is `*`.
    keeps_all: bool,
    condition: Option<Key>,
}

/// The columns of a source's files.
pub(crate) struct SourceColumns<'a> {
    /// The first readable file.
    pub(crate) file: &'a str,
    /// Its columns.
    pub(crate) first: &'a FileTypes,
    /// The columns of all files; of the first one if no others are needed.
    pub(crate) all: &'a FileTypes,
    /// The partitions that are no column of the files.
    pub(crate) partitions: Partitions,
    pub(crate) scope: Scope,
    /// The kept columns that the table has already.
    pub(crate) table: &'a [FieldRef],
    /// Inputs of SQL whose types an earlier run has decided.
    pub(crate) inputs: &'a [FieldRef],
}

/// The meaning of a key for these files.
#[expect(clippy::large_enum_variant, reason = "a source has a few, and only while it is opened")]
enum Meaning {
    Column(String),
    Sql(ResolvedSql),
}

impl Key {
    fn new(name: impl Into<String>, value: &str) -> Self {
        Self { name: name.into(), value: value.to_owned(), parsed: ParsedSql::parse(value) }
    }

    fn error(&self, message: String) -> SourceError {
        SourceError::Expression { key: self.name.clone(), expression: self.value.clone(), message }
    }

    /// The column whose name is the value, or the meaning of the value as SQL.
    fn meaning(&self, columns: &SourceColumns<'_>, usage: ColumnUse) -> Result<Meaning, SourceError> {
        let is_column = |name: &str| columns.all.iter().any(|(column, _)| column == name);
        if is_column(&self.value) {
            return Ok(Meaning::Column(self.value.clone()));
        }
        if columns.partitions.position(&self.value).is_some() {
            return Ok(Meaning::Sql(ResolvedSql::column_of(&self.value)));
        }
        let parsed = match &self.parsed {
            Ok(parsed) if parsed.plain_word().is_none() => parsed,
            // Words that are the name of no column.
            Err(_) if !looks_like_sql(&self.value) => return Err(self.missing(columns, usage)),
            Ok(_) => return Err(self.missing(columns, usage)),
            Err(message) => return Err(self.error(message.clone())),
        };
        let resolved = parsed.resolve(&columns.names()).map_err(|message| self.error(message))?;
        Ok(match resolved.column() {
            Some(column) if is_column(column) => Meaning::Column(column.to_owned()),
            _ => Meaning::Sql(resolved),
        })
    }

    fn missing(&self, columns: &SourceColumns<'_>, usage: ColumnUse) -> SourceError {
        missing(columns.file, columns.first, &self.value, usage)
    }

    fn planned(
        &self,
        sql: &ResolvedSql,
        schema: &Schema,
        expected: &str,
        fits: impl Fn(&DataType) -> bool,
    ) -> Result<Expression, SourceError> {
        let (physical, data_type) = sql.plan(schema).map_err(|message| self.error(message))?;
        if !fits(&data_type) {
            return Err(self.error(format!("it has the type {data_type}, expected {expected}")));
        }
        Ok(Expression { key: self.name.clone(), physical, data_type })
    }
}

/// Whether a value has characters that occur in SQL and hardly ever in a name.
fn looks_like_sql(value: &str) -> bool {
    value.contains(['(', ')', '[', ']', '\'', '"', '|', '=', '<', '>', '+', '*', '/', ','])
}

impl SourceColumns<'_> {
    /// The columns of the files that these expressions have as inputs, each once.
    fn inputs_of<'s>(&self, sqls: impl Iterator<Item = &'s ResolvedSql>) -> Result<Vec<String>, SourceError> {
        let mut inputs: Vec<String> = Vec::new();
        for name in sqls.flat_map(|sql| &sql.columns) {
            if self.partitions.position(name).is_none() && !inputs.contains(name) {
                expect_unique(self.file, self.first, name)?;
                inputs.push(name.clone());
            }
        }
        Ok(inputs)
    }

    /// The names of all columns, each once. An input that an earlier run recorded is no column: one that all files have
    /// lost would be null in every row, and the condition would drop them all.
    fn names(&self) -> Vec<String> {
        let of_files = self.all.iter().map(|(name, _)| name);
        let mut seen = HashSet::new();
        of_files.cloned().chain(self.partitions.names()).filter(|name| seen.insert(name.clone())).collect()
    }
}

impl Keys {
    pub(crate) fn new(spec: &SourceSpec) -> Self {
        let keep = spec.keep.iter().enumerate();
        Self {
            id: Key::new("id", &spec.id),
            text: Key::new("text", &spec.text),
            keep: keep.map(|(at, value)| Key::new(format!("keep[{at}]"), value)).collect(),
            keeps_all: spec.keep == ["*"],
            condition: spec.condition.as_ref().map(|value| Key::new("where", value)),
        }
    }

    pub(super) fn condition(&self) -> Option<&ParsedSql> {
        self.condition.as_ref().and_then(|key| key.parsed.as_ref().ok())
    }

    /// Names that the header of a CSV file should have.
    pub(crate) fn header(&self) -> Arc<[String]> {
        let keys = [&self.id, &self.text].into_iter();
        keys.flat_map(|key| {
            let expression = key.parsed.as_ref().ok().filter(|parsed| parsed.plain_word().is_none());
            let names = expression.map(ParsedSql::names).unwrap_or_default();
            std::iter::once(key.value.clone()).chain(names)
        })
        .collect()
    }

    /// The columns of the files whose types have to be known: kept ones that the table lacks, and inputs of SQL.
    pub(crate) fn undecided(
        &self,
        first: &FileTypes,
        partitions: &Partitions,
        table: &[FieldRef],
        known: &[FieldRef],
    ) -> Vec<String> {
        let in_table = |name: &str| table.iter().any(|field| field.name() == name);
        let in_first = |name: &str| first.iter().any(|(column, _)| column == name);
        let columns: Vec<String> = first.iter().map(|(name, _)| name.clone()).collect();
        let mut undecided = Vec::new();
        let known: Vec<String> = known.iter().map(|field| field.name().clone()).chain(partitions.names()).collect();
        // The types of recorded inputs are known, but a column that the first file lacks has to be found.
        let is_found = |name: &String| in_first(name) || partitions.position(name).is_some();
        let is_known = |key: &Key| {
            let resolved = key.parsed.as_ref().ok().and_then(|parsed| parsed.resolve(&known).ok());
            resolved.is_some_and(|sql| sql.columns.iter().all(is_found))
        };
        let inputs = |key: &Key| -> Vec<String> {
            let Ok(parsed) = &key.parsed else { return Vec::new() };
            let resolved = parsed.resolve(&columns).map(|resolved| resolved.columns).unwrap_or_default();
            parsed.names().into_iter().chain(resolved).collect()
        };
        for key in self.keep.iter().filter(|_| !self.keeps_all) {
            let alias = key.parsed.as_ref().ok().and_then(|parsed| parsed.alias.as_deref());
            if in_table(&key.value) || in_first(&key.value) {
                undecided.extend((!in_table(&key.value)).then(|| key.value.clone()));
            } else if is_rename(key) && alias.is_some_and(in_table) {
                // The table has the type; only a column that the first file lacks has to be found.
                undecided.extend(inputs(key).into_iter().filter(|name| !in_first(name)));
            } else if is_rename(key) || !is_known(key) {
                undecided.push(key.value.clone());
                undecided.extend(inputs(key));
            }
        }
        for key in [&self.id, &self.text] {
            if !in_first(&key.value) && key.value != CONTENT_ID && key.value != ROW_ID && !is_known(key) {
                undecided.extend(inputs(key));
            }
        }
        if let Some(key) = &self.condition {
            if in_first(&key.value) {
                undecided.extend((!known.contains(&key.value)).then(|| key.value.clone()));
            } else if !is_known(key) {
                undecided.extend(inputs(key));
            }
        }
        undecided.retain(|name| partitions.position(name).is_none());
        undecided
    }

    /// Refuses ids and texts that are columns with other types, before all files are looked at.
    pub(crate) fn check_first(
        &self,
        file: &str,
        first: &FileTypes,
        partitions: &Partitions,
    ) -> Result<(), SourceError> {
        for (key, usage, expected, fits) in [
            (&self.text, ColumnUse::Text, "text", is_text as fn(&DataType) -> bool),
            (&self.id, ColumnUse::Id, "text or whole numbers", is_id),
        ] {
            let is_column = find(first, &key.value).is_some();
            let is_special = usage == ColumnUse::Id && (key.value == CONTENT_ID || key.value == ROW_ID);
            let is_word =
                key.value.starts_with('@') || key.parsed.as_ref().is_ok_and(|parsed| parsed.plain_word().is_some());
            if is_column || is_word && !is_special && partitions.position(&key.value).is_none() {
                expect(file, first, &key.value, usage, expected, fits)?;
            }
        }
        Ok(())
    }

    /// Checks the keys against the columns and plans their SQL.
    pub(crate) fn compile(&self, spec: &SourceSpec, columns: SourceColumns<'_>) -> Result<Projection, SourceError> {
        let special = |name: &str| self.id.value == name && find(columns.first, name).is_none();
        let id =
            if special(CONTENT_ID) || special(ROW_ID) { None } else { Some(self.id.meaning(&columns, ColumnUse::Id)?) };
        let text = self.text.meaning(&columns, ColumnUse::Text)?;
        let condition = match &self.condition {
            Some(key) => Some((key, Self::condition_sql(key, &columns)?)),
            None => None,
        };
        let kept = self.kept(spec, &columns)?;

        let meanings = [id.as_ref(), Some(&text)].into_iter().flatten().chain(kept.iter().map(|kept| &kept.meaning));
        let sqls = meanings.filter_map(|meaning| if let Meaning::Sql(sql) = meaning { Some(sql) } else { None });
        let inputs = columns.inputs_of(sqls.chain(condition.iter().map(|(_, sql)| sql)))?;
        let input = |name: &String| match columns.inputs.iter().find(|field| field.name() == name) {
            Some(known) => Arc::clone(known),
            None => stored(name, &find(columns.all, name).unwrap_or(DataType::Utf8)),
        };
        let input_fields: Vec<FieldRef> = inputs.iter().map(input).collect();
        let fields = input_fields.iter().chain(&columns.partitions.fields).map(Arc::clone);
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));

        let KeptPlan { fields, sources: keep, read } = plan_kept(&kept, &columns, &schema)?;
        let (id_column, id, id_inputs) = match &id {
            None if special(CONTENT_ID) => (None, IdSource::Content, Vec::new()),
            None => (None, IdSource::Row, Vec::new()),
            Some(Meaning::Column(column)) => {
                expect(columns.file, columns.first, column, ColumnUse::Id, "text or whole numbers", is_id)?;
                (Some(column.clone()), IdSource::Column, Vec::new())
            }
            Some(Meaning::Sql(sql)) => {
                let expression = self.id.planned(sql, &schema, "text or whole numbers", is_id)?;
                (None, IdSource::Computed(expression), sql.columns.clone())
            }
        };
        let (text_column, text, text_inputs) = match &text {
            Meaning::Column(column) => {
                expect(columns.file, columns.first, column, ColumnUse::Text, "text", is_text)?;
                (Some(column.clone()), TextSource::Column, Vec::new())
            }
            Meaning::Sql(sql) => {
                let is_string = |kind: &DataType| !kind.is_null() && plain_type(kind) == DataType::Utf8;
                let expression = self.text.planned(sql, &schema, "text", is_string)?;
                (None, TextSource::Computed(expression), sql.columns.clone())
            }
        };
        let mut needed_for_ids = id_inputs;
        let is_content = matches!(id, IdSource::Content);
        needed_for_ids.extend(text_inputs.into_iter().filter(|_| is_content));
        let mut pruning = None;
        let condition = match condition {
            Some((key, sql)) => {
                needed_for_ids.extend(sql.columns.iter().cloned());
                pruning = sql.pruning(&schema, &inputs).map(Arc::new);
                let is_boolean = |kind: &DataType| *kind == DataType::Boolean;
                Some(key.planned(&sql, &schema, "true or false", is_boolean)?)
            }
            None => None,
        };
        let base = Columns {
            id: id_column,
            text: text_column,
            keep: Vec::new(),
            max_bytes: spec.max_bytes,
            csv: spec.csv,
            header: self.header(),
            pruning,
        };
        let is_plain = matches!((&id, &text, &condition), (IdSource::Column, TextSource::Column, None))
            && keep.iter().all(|source| matches!(source, KeptSource::Column(_)));
        let ids_text = base.text.clone().filter(|_| is_content);
        let ids = ReadPlan::new(Columns { text: ids_text, ..base.clone() }, &input_fields, |name| {
            needed_for_ids.iter().any(|needed| needed == name)
        });
        let whole = ReadPlan::new(Columns { keep: read, ..base }, &input_fields, |_| true);
        let SourceColumns { partitions, scope, .. } = columns;
        Ok(Projection { id, text, keep, fields, condition, schema, partitions, whole, ids, scope, is_plain })
    }

    fn condition_sql(key: &Key, columns: &SourceColumns<'_>) -> Result<ResolvedSql, SourceError> {
        let names = columns.names();
        if names.contains(&key.value) {
            return Ok(ResolvedSql::column_of(&key.value));
        }
        let parsed = key.parsed.as_ref().map_err(|message| key.error(message.clone()))?;
        parsed.resolve(&names).map_err(|message| key.error(message))
    }

    /// The kept columns with their names in the table.
    fn kept<'k>(&'k self, spec: &SourceSpec, columns: &SourceColumns<'_>) -> Result<Vec<Kept<'k>>, SourceError> {
        let mut kept = Vec::new();
        let names: HashSet<String> = columns.names().into_iter().collect();
        if self.keeps_all {
            let mut names: Vec<String> = columns.table.iter().map(|field| field.name().clone()).collect();
            for (name, _) in if columns.table.is_empty() { columns.all } else { columns.first } {
                if *name != spec.id && *name != spec.text && !reserved(name) && !names.contains(name) {
                    names.push(name.clone());
                }
            }
            // A table that was created without the partitions stays without them.
            let partitions = columns
                .partitions
                .names()
                .filter(|name| columns.table.is_empty() && *name != spec.id && *name != spec.text && !reserved(name));
            names.extend(partitions);
            for name in names {
                let meaning = match columns.partitions.position(&name) {
                    Some(_) => Meaning::Sql(ResolvedSql::column_of(&name)),
                    None => Meaning::Column(name.clone()),
                };
                kept.push(Kept { key: &self.keep[0], name, meaning });
            }
        }
        for key in self.keep.iter().filter(|_| !self.keeps_all) {
            if key.parsed.as_ref().is_ok_and(|parsed| parsed.plain_word().is_some()) {
                check_name(&key.value)?;
            }
            let is_table_column = columns.table.iter().any(|field| *field.name() == key.value);
            let meaning = if is_table_column && columns.partitions.position(&key.value).is_none() {
                // A column that no file has any more is null.
                Meaning::Column(key.value.clone())
            } else {
                key.meaning(columns, ColumnUse::Other)?
            };
            let alias = key.parsed.as_ref().ok().and_then(|parsed| parsed.alias.clone());
            let is_name = names.contains(&key.value);
            let name = match (&meaning, alias) {
                (_, Some(alias)) if !is_name => alias,
                (Meaning::Column(column), _) => column.clone(),
                (Meaning::Sql(sql), None) if sql.column().is_some() => sql.columns.concat(),
                (Meaning::Sql(_), _) => {
                    return Err(key.error(format!("it needs a name for the table: `{} AS name`", key.value)));
                }
            };
            kept.push(Kept { key, name, meaning });
        }
        for (at, Kept { name, .. }) in kept.iter().enumerate() {
            check_name(name)?;
            if kept[..at].iter().any(|earlier| earlier.name == *name) {
                return Err(SourceError::KeptTwice { column: name.clone() });
            }
        }
        Ok(kept)
    }
}

/// A kept column.
struct Kept<'k> {
    /// The key that keeps it, for messages.
    key: &'k Key,
    /// Its name in the table.
    name: String,
    meaning: Meaning,
}

/// How the kept columns are made.
#[derive(Default)]
struct KeptPlan {
    /// The columns as the table has them.
    fields: Vec<FieldRef>,
    sources: Vec<KeptSource>,
    /// The columns that are read for them.
    read: Vec<FieldRef>,
}

fn plan_kept(kept: &[Kept<'_>], columns: &SourceColumns<'_>, schema: &Schema) -> Result<KeptPlan, SourceError> {
    let mut plan = KeptPlan::default();
    for Kept { key, name, meaning } in kept {
        let in_table = columns.table.iter().find(|field| field.name() == name);
        match meaning {
            Meaning::Column(column) => {
                expect_unique(columns.file, columns.first, column)?;
                let found = || find(columns.all, column).map(|found| stored(name, &found));
                let field = in_table.map(Arc::clone).or_else(found);
                let field = field.ok_or_else(|| missing(columns.file, columns.first, column, ColumnUse::Other))?;
                let as_read = field.as_ref().clone().with_name(column);
                plan.sources.push(KeptSource::Column(plan.read.len()));
                plan.read.push(if column == name { Arc::clone(&field) } else { Arc::new(as_read) });
                plan.fields.push(field);
            }
            Meaning::Sql(sql) => {
                let expression = key.planned(sql, schema, "a value", |_| true)?;
                plan.fields.push(in_table.map_or_else(|| stored(name, &expression.data_type), Arc::clone));
                plan.sources.push(KeptSource::Computed(expression));
            }
        }
    }
    Ok(plan)
}

/// Whether a key is another name for a column: `url AS link`.
fn is_rename(key: &Key) -> bool {
    key.parsed.as_ref().is_ok_and(|parsed| parsed.alias.is_some() && parsed.is_column())
}

impl ReadPlan {
    /// Reads the inputs after the columns, where they are needed.
    fn new(mut columns: Columns, inputs: &[FieldRef], is_needed: impl Fn(&str) -> bool) -> Self {
        let mut positions = Vec::with_capacity(inputs.len());
        for field in inputs {
            let needed = is_needed(field.name());
            positions.push(needed.then_some(columns.keep.len()));
            columns.keep.extend(needed.then(|| Arc::clone(field)));
        }
        Self { columns, inputs: positions }
    }
}
