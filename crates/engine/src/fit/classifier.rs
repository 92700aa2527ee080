//! Trains a text classifier on labelled rows.

use std::{collections::BTreeSet, path::PathBuf, time::Instant};

use arrow::{
    array::{Array, AsArray},
    datatypes::Float32Type,
};
use futures::TryStreamExt;
use polylance_config::{Pipeline, Source, Table};
use polylance_encoder::{FittedHead, FittedKind, ModelFiles};
use polylance_fit::{ClassificationReport, Features, SequenceHead, TrainOptions};
use polylance_schema::{ChunkMode, IndexKind};
use polylance_search::SqlSession;
use serde::Serialize;

use super::Result;
use crate::{EmbedOptions, EmbedPlan, Observer, UsageError};

/// A classifier to train.
#[derive(Debug)]
pub struct ClassifierRequest {
    /// Labelled rows: a file, a folder or a glob.
    pub source: String,
    /// The column with the row's id.
    pub id: String,
    /// The column with the text.
    pub text: String,
    /// The column with the label.
    pub label: String,
    /// SQL condition: train on these rows only.
    pub condition: Option<String>,
    /// SQL condition: measure on these rows; `None` for the rows held out of training.
    pub test: Option<String>,
    /// The model below the head.
    pub model: String,
    /// The folder to write.
    pub out: PathBuf,
    /// The Lance table of the vectors.
    pub features: String,
    /// Devices that compute them; the pipeline's default if empty.
    pub devices: Vec<String>,
    /// How the head is trained.
    pub options: TrainOptions,
}

/// The trained head, and its quality.
#[derive(Debug, Serialize)]
pub struct ClassifierSummary {
    /// The folder that was written.
    pub out: String,
    /// The model below the head.
    pub model: String,
    /// Number of classes.
    pub labels: usize,
    /// Rows that the head was trained on.
    pub trained_rows: usize,
    /// Rows held out, which decided when training stopped.
    pub held_out_rows: usize,
    /// Rows without a label.
    pub rows_without_label: usize,
    /// Passes over the vectors.
    pub epochs: usize,
    /// The pass whose head was kept.
    pub best_epoch: usize,
    /// Duration of the training.
    pub seconds: f64,
    /// The rows of `report`: held-out rows or test rows.
    pub measured_on: &'static str,
    /// The quality of the head on them.
    pub report: ClassificationReport,
}

/// Rows whose vectors are in the table of features.
#[derive(Debug)]
pub struct EmbeddedRows {
    request: ClassifierRequest,
    files: ModelFiles,
    /// Rows that could not be read or embedded.
    pub rows_quarantined: u64,
}

impl ClassifierRequest {
    /// Embeds the rows that have no vector yet.
    ///
    /// # Errors
    /// Those of [`EmbedPlan::open`] and [`EmbedPlan::run`].
    pub async fn embed(self, files: ModelFiles, observer: &mut dyn Observer) -> Result<EmbeddedRows> {
        let pipeline = pipeline(&self);
        pipeline.validate()?;
        let plan = Box::pin(EmbedPlan::open(&pipeline, EmbedOptions::default())).await?;
        let rows_quarantined = Box::pin(plan.run(observer)).await?.summary.rows_quarantined;
        Ok(EmbeddedRows { request: self, files, rows_quarantined })
    }
}

impl EmbeddedRows {
    /// Trains a classifier and writes it with its model as a folder.
    ///
    /// # Errors
    /// [`EngineError::Fit`](crate::EngineError::Fit) if there is nothing to learn from, and errors of reading vectors.
    pub async fn fit(&self) -> Result<ClassifierSummary> {
        let Self { request, files, .. } = self;
        let ClassifierRequest { features: table, label, options, .. } = request;
        let rows = read(table, label, request.condition.as_deref()).await?;
        let labels: Vec<String> = rows.labels.iter().collect::<BTreeSet<_>>().into_iter().cloned().collect();
        let class = |name: &String| labels.binary_search(name).map(|class| class as u32);
        let classes: Vec<u32> = rows.labels.iter().filter_map(|name| class(name).ok()).collect();
        let features = Features { width: rows.width, values: rows.values, classes };
        let started = Instant::now();
        let (count, options) = (labels.len(), options.clone());
        let (features, fitted) = tokio::task::spawn_blocking(move || {
            let fitted = polylance_fit::train(&features, count, &options)?;
            Ok::<_, polylance_fit::FitError>((features, fitted))
        })
        .await??;
        let seconds = started.elapsed().as_secs_f64();

        let (pairs, measured_on) = match &request.test {
            None => {
                let pair = |&row: &usize| (features.classes[row], fitted.head.predict(features.row(row)));
                (fitted.held_out.iter().map(pair).collect::<Vec<_>>(), "held-out rows")
            }
            Some(condition) => {
                let test = read(table, label, Some(condition)).await?;
                let unknown = test.labels.iter().find(|name| class(name).is_err());
                if let Some(label) = unknown {
                    let message = format!("a row of --test has the label {label:?}, which no training row has");
                    return Err(UsageError::new(message).into());
                }
                let right = test.labels.iter().filter_map(|name| class(name).ok());
                let found = test.values.chunks(test.width.max(1)).map(|row| fitted.head.predict(row));
                (right.zip(found).collect(), "test rows")
            }
        };
        let report = ClassificationReport::new(&pairs, &labels);
        let defaults = files.defaults();
        let head = SequenceHead {
            head: &fitted.head,
            labels: &labels,
            fitted: FittedHead {
                head: Some(FittedKind::PooledLinear),
                pooling: defaults.pooling,
                normalize: defaults.normalize,
                prefix: defaults.prompts.passage.clone(),
                backbone: None,
            },
        };
        head.write(files, &request.out)?;
        Ok(ClassifierSummary {
            out: request.out.display().to_string(),
            model: files.name().to_owned(),
            labels: labels.len(),
            trained_rows: fitted.trained_rows,
            held_out_rows: fitted.held_out.len(),
            rows_without_label: rows.without_label,
            epochs: fitted.epochs,
            best_epoch: fitted.best_epoch,
            seconds,
            measured_on,
            report,
        })
    }
}

/// The pipeline that embeds each text.
fn pipeline(request: &ClassifierRequest) -> Pipeline {
    let source = Source {
        id: request.id.clone(),
        text: request.text.clone(),
        keep: vec!["*".to_owned()],
        ..Source::new(request.source.clone())
    };
    let mut pipeline = Pipeline::new(source, Table { text: false, ..Table::new(request.features.clone()) });
    pipeline.model.id.clone_from(&request.model);
    if !request.devices.is_empty() {
        pipeline.model.devices.clone_from(&request.devices);
    }
    pipeline.chunk.mode = ChunkMode::Truncate;
    pipeline.index.kind = IndexKind::None;
    pipeline
}

/// Labelled vectors.
#[derive(Debug, Default)]
struct Rows {
    width: usize,
    values: Vec<f32>,
    labels: Vec<String>,
    without_label: usize,
}

/// The rows of the table of features that match a condition, ordered by id.
async fn read(table: &str, label: &str, condition: Option<&str>) -> Result<Rows> {
    let session = SqlSession::open(&[("features".to_owned(), table.to_owned())], None).await?;
    let quoted = label.replace('"', "\"\"");
    let condition = condition.map(|condition| format!(" WHERE ({condition})")).unwrap_or_default();
    let sql =
        format!("SELECT embedding, CAST(\"{quoted}\" AS VARCHAR) AS label FROM features{condition} ORDER BY doc_id");
    let mut batches = session.query(&sql).await?;
    let mut rows = Rows::default();
    while let Some(batch) = batches.try_next().await? {
        let vectors = batch.column(0).as_fixed_size_list();
        rows.width = vectors.value_length() as usize;
        let labels = arrow::compute::cast(batch.column(1), &arrow::datatypes::DataType::Utf8)?;
        let labels = labels.as_string::<i32>();
        for row in 0..batch.num_rows() {
            if labels.is_null(row) {
                rows.without_label += 1;
                continue;
            }
            rows.labels.push(labels.value(row).to_owned());
            rows.values.extend_from_slice(vectors.value(row).as_primitive::<Float32Type>().values());
        }
    }
    Ok(rows)
}
