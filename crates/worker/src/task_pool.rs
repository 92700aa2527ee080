//! A model with a head, its tokenizer threads and its devices as one annotator.

use std::sync::Arc;

use futures::{FutureExt, future::BoxFuture};
use polylance_backend::{AnnotateInput, Annotated, Annotator, BackendError, Result};
use polylance_encoder::{
    Activation, Device as Hardware, LoadOptions, LoadReport, ModelError, ModelFiles, PackedBatch, Task, TaskModel,
};
use polylance_schema::{HeadContract, HeadInputs, TaskSpec};
use tokenizers::Encoding;

use crate::{
    PoolError, PoolOptions,
    device::DeviceWorker,
    device_threads::DeviceThreads,
    devices::Devices,
    machine::Machine,
    placement::{LoadModel, Placed, Placement, place},
    pool::finite,
    spec::cores,
    tasks::{self, Limit, Meaning, TaskInput, TaskOutput, TaskRunner, masks_top},
    tokenizers::{Threads, guarded, tokenizer},
};

/// Texts that are encoded and computed together.
const WINDOW: usize = 512;

/// A model with a head on its devices.
#[derive(Debug)]
pub struct TaskPool {
    runner: Arc<TaskRunner>,
    threads: Arc<Threads>,
    devices: Arc<Devices<TaskInput, TaskOutput>>,
    names: Vec<String>,
    report: LoadReport,
}

impl TaskPool {
    /// Loads the model and its head onto the devices. Of the options those about vectors do not count.
    ///
    /// # Errors
    /// When the model cannot be loaded, has no such head, or a device does not exist.
    pub fn open(files: &ModelFiles, spec: TaskSpec, options: &PoolOptions) -> std::result::Result<Self, PoolError> {
        let settings = files.tokenizer_settings();
        // A cross-encoder is sentence-transformers', every other head one of transformers' pipelines.
        let (activation, max_tokens) = match spec {
            TaskSpec::Rerank => (files.head_config().activation()?, files.defaults().max_tokens),
            _ => (Activation::default(), files.max_tokens()),
        };
        let machine = Machine::this();
        let selection = options.select(machine)?;
        let load =
            LoadOptions { dtype: Some(selection.dtype), batch_tokens: options.batch_tokens, ..LoadOptions::default() };
        let load = LoadTask { files: files.clone(), task: tasks::head(&spec), options: load };
        let Placement { workers, model, batch_tokens } =
            place(load, &selection.devices, options.batch_tokens, machine)?;
        let top = if let TaskSpec::FillMask { top_k } = &spec { *top_k } else { 0 };
        let worker = |(threads, placed)| TaskWorker { threads, placed, spec: spec.clone(), top };
        let workers = workers.into_iter().map(worker).collect();
        let devices = Devices::start(workers, batch_tokens, options.stall())?;
        let unusable = |message| PoolError::Tokenizer { model: files.name().to_owned(), message };
        let runner = TaskRunner::new(
            spec,
            Meaning { labels: model.labels().to_vec(), problem_type: model.problem_type(), activation },
            prefix(files),
            Arc::new(tokenizer(files.name(), &files.tokenizer_json()?, settings)?),
            Limit { max_tokens, side: settings.truncation_side },
        );
        let threads = Threads::start(options.tokenizer_threads.unwrap_or_else(|| cores().len()))?;
        Ok(Self {
            runner: Arc::new(runner.map_err(unusable)?),
            threads: Arc::new(threads),
            names: devices.names().to_vec(),
            devices: Arc::new(devices),
            report: model.report().clone(),
        })
    }

    /// What loading found.
    pub fn report(&self) -> &LoadReport {
        &self.report
    }

    /// Device names, as configured.
    pub fn devices(&self) -> &[String] {
        &self.names
    }
}

/// Text before every input: that under which the head was fitted.
pub(crate) fn prefix(files: &ModelFiles) -> String {
    files.head_config().fitted().map(|fitted| fitted.prefix.clone()).unwrap_or_default()
}

/// Everything that decides the answers of a head, known without loading it.
///
/// # Errors
/// When the model has no labels where the task needs them, or its files cannot be read.
pub fn head_contract(
    files: &ModelFiles,
    spec: TaskSpec,
    inputs: HeadInputs,
    options: &PoolOptions,
) -> std::result::Result<HeadContract, ModelError> {
    let labels = match tasks::head(&spec) {
        Task::SequenceClassification | Task::TokenClassification => files.head_config().labels()?.to_vec(),
        _ => Vec::new(),
    };
    Ok(HeadContract {
        model: files.name().to_owned(),
        weights_hash: files.weights_hash()?,
        tokenizer_hash: files.tokenizer_hash()?,
        spec,
        labels,
        prefix: prefix(files),
        inputs,
        dtype: options.dtype.unwrap_or_default().to_string(),
    })
}

impl Annotator for TaskPool {
    fn spec(&self) -> &TaskSpec {
        &self.runner.spec
    }

    fn annotate(&self, inputs: Vec<AnnotateInput>) -> BoxFuture<'static, Result<Vec<Annotated>>> {
        let (runner, threads, devices) =
            (Arc::clone(&self.runner), Arc::clone(&self.threads), Arc::clone(&self.devices));
        async move {
            let mut answers = Vec::with_capacity(inputs.len());
            for window in inputs.chunks(WINDOW) {
                answers.extend(annotate(&runner, &threads, &devices, window.to_vec()).await?);
            }
            Ok(answers)
        }
        .boxed()
    }
}

/// An input, its encodings, and after the devices their outputs.
struct Work {
    input: AnnotateInput,
    encodings: std::result::Result<Vec<Encoding>, String>,
    outputs: Vec<TaskOutput>,
}

async fn annotate(
    runner: &Arc<TaskRunner>,
    threads: &Threads,
    devices: &Devices<TaskInput, TaskOutput>,
    inputs: Vec<AnnotateInput>,
) -> Result<Vec<Annotated>> {
    let encoder = Arc::clone(runner);
    let encode = move |input: AnnotateInput| {
        let encodings = guarded(|| encoder.encode(&input).map_err(BackendError::Input)).map_err(message);
        Work { input, encodings, outputs: Vec::new() }
    };
    let mut work = threads.map(inputs, encode).await?;
    let mut asked = Vec::new();
    for one in &mut work {
        let Ok(encodings) = &one.encodings else { continue };
        asked.extend(encodings.iter().map(|encoding| runner.model_input(encoding)));
    }
    let mut outputs = run(devices, asked).await?.into_iter();
    for one in &mut work {
        let count = one.encodings.as_ref().map_or(0, Vec::len);
        let of_input: std::result::Result<Vec<_>, String> = outputs.by_ref().take(count).collect();
        match of_input {
            Ok(of_input) => one.outputs = of_input,
            Err(message) => one.encodings = Err(message),
        }
    }
    let decoder = Arc::clone(runner);
    let decode = move |work: Work| {
        let encodings = work.encodings?;
        let annotation = || decoder.annotation(&work.input, &encodings, &work.outputs).map_err(BackendError::Input);
        guarded(annotation).map_err(message)
    };
    threads.map(work, decode).await
}

/// A refusal in the words of who refused.
pub(crate) fn message(error: BackendError) -> String {
    match error {
        BackendError::Input(message) => message,
        error => error.to_string(),
    }
}

/// An output, unless its numbers mean nothing.
fn usable(output: TaskOutput) -> std::result::Result<TaskOutput, String> {
    match &output {
        TaskOutput::Logits(logits) => finite(logits)?,
        TaskOutput::Top(masks) => masks.iter().flatten().try_for_each(|(_, score)| finite(&[*score]))?,
        TaskOutput::Ids(_) => {}
    }
    Ok(output)
}

/// Outputs, or why an input has none: a refused call is repeated one input at a time.
async fn run(
    devices: &Devices<TaskInput, TaskOutput>,
    inputs: Vec<TaskInput>,
) -> Result<Vec<std::result::Result<TaskOutput, String>>> {
    match devices.run(inputs.clone()).await {
        Ok(outputs) => Ok(outputs.into_iter().map(usable).collect()),
        Err(BackendError::Input(_)) => {
            let mut outputs = Vec::with_capacity(inputs.len());
            for input in inputs {
                outputs.push(match devices.run(vec![input]).await {
                    Ok(output) => {
                        output.into_iter().next().ok_or_else(|| "the model gave no output".to_owned()).and_then(usable)
                    }
                    Err(BackendError::Input(message)) => Err(message),
                    Err(error) => return Err(error),
                });
            }
            Ok(outputs)
        }
        Err(error) => Err(error),
    }
}

struct LoadTask {
    files: ModelFiles,
    task: Task,
    options: LoadOptions,
}

impl LoadModel for LoadTask {
    type Model = TaskModel;

    fn on(&self, device: &Hardware) -> std::result::Result<TaskModel, ModelError> {
        TaskModel::load(&self.files, self.task, &self.options, device)
    }

    fn report(model: &TaskModel) -> &LoadReport {
        model.report()
    }

    fn batch_tokens(model: &TaskModel) -> Option<usize> {
        model.batch_tokens()
    }
}

/// A model with a head on a device.
struct TaskWorker {
    threads: DeviceThreads,
    placed: Placed<LoadTask>,
    spec: TaskSpec,
    /// Words to tell for each mask.
    top: usize,
}

impl DeviceWorker for TaskWorker {
    type Input = TaskInput;
    type Output = TaskOutput;

    fn name(&self) -> &str {
        self.threads.name()
    }

    fn run(&self, inputs: &[TaskInput]) -> Result<Vec<TaskOutput>> {
        self.placed.pass(|model| self.threads.run(|| self.outputs(model, inputs)))
    }

    fn another(&self) -> Result<Self> {
        let (threads, placed) = (self.threads.another()?, self.placed.another());
        Ok(Self { threads, placed, spec: self.spec.clone(), top: self.top })
    }
}

impl TaskWorker {
    fn outputs(&self, model: &TaskModel, inputs: &[TaskInput]) -> std::result::Result<Vec<TaskOutput>, ModelError> {
        let batch = || {
            let rows: Vec<Vec<u32>> = inputs.iter().map(|input| input.ids.clone()).collect();
            let types: Vec<Vec<u32>> = inputs.iter().map(|input| input.types.clone()).collect();
            PackedBatch::with_token_types(&rows, &types)
        };
        match &self.spec {
            TaskSpec::Generate(generation) => {
                let made = inputs.iter().map(|input| model.generate(&input.ids, generation).map(TaskOutput::Ids));
                made.collect()
            }
            TaskSpec::FillMask { .. } => {
                let positions: Vec<Vec<usize>> = inputs.iter().map(|input| input.positions.clone()).collect();
                let mut logits = model.mask_logits(&batch()?, &positions)?.into_iter();
                let of_input =
                    |count: usize| logits.by_ref().take(count).map(|row| masks_top(&row, self.top)).collect();
                Ok(positions.iter().map(Vec::len).map(of_input).map(TaskOutput::Top).collect())
            }
            _ => Ok(model.forward(&batch()?)?.into_iter().map(TaskOutput::Logits).collect()),
        }
    }
}
