//! A model with a head, its tokenizer threads and its devices, as one annotator.

use std::sync::Arc;

use futures::{FutureExt, future::BoxFuture};
use polylance_backend::{AnnotateInput, Annotated, Annotator, BackendError, Result};
use polylance_encoder::{
    Activation, Device as Hardware, Gpu, HeadModel, LoadOptions, LoadReport, ModelError, ModelFiles, PackedBatch,
};
use polylance_schema::TaskSpec;
use tokenizers::Encoding;

use crate::{
    device::Devices,
    error::{PoolError, refusal_message},
    finite::check_finite,
    options::PoolOptions,
    placement::{DeviceModel, DeviceThreads, PerDevice},
    selection::{Machine, Selection, cores},
    tasks::{InputLimit, LogitInfo, TaskInput, TaskOutput, TaskRunner, fitted_prefix, head_kind, top_tokens},
    tokenize::{TextThreads, catch_panic, read_tokenizer},
};

/// Texts that are encoded and computed together.
const WINDOW_TEXTS: usize = 512;

/// A model with a head on its devices.
#[derive(Debug)]
pub struct TaskPool {
    runner: Arc<TaskRunner>,
    threads: Arc<TextThreads>,
    devices: Arc<Devices<TaskInput, TaskOutput>>,
    names: Vec<String>,
    report: LoadReport,
}

impl TaskPool {
    /// Loads the model and its head onto the devices. Options that concern vectors are ignored.
    ///
    /// # Errors
    /// When the model cannot be loaded, has no such head, or a device does not exist.
    pub fn open(files: &ModelFiles, spec: TaskSpec, options: &PoolOptions) -> std::result::Result<Self, PoolError> {
        let settings = files.tokenizer_settings();
        // A cross-encoder follows sentence-transformers, every other head a pipeline of transformers.
        let (activation, max_tokens) = match spec {
            TaskSpec::Rerank => (files.head_config().activation()?, files.defaults().max_tokens),
            _ => (Activation::default(), files.max_tokens()),
        };
        let machine = Machine::this();
        let selection = Selection::from_options(options, machine)?;
        let load_options = LoadOptions {
            dtype: Some(selection.dtype),
            memory: options.memory,
            batch_tokens: options.batch_tokens,
            ..LoadOptions::default()
        };
        let model = AnnotationModel { files: files.clone(), spec: spec.clone(), options: load_options };
        let PerDevice { devices, loaded } = PerDevice::load(model, &selection.devices, options, machine)?;
        let unusable = |message| PoolError::Tokenizer { model: files.name().to_owned(), message };
        let runner = TaskRunner::new(
            spec,
            LogitInfo {
                labels: loaded.head().labels().to_vec(),
                problem_type: loaded.head().problem_type(),
                activation,
            },
            fitted_prefix(files),
            Arc::new(read_tokenizer(files.name(), &files.tokenizer_json()?, settings)?),
            InputLimit { max_tokens, side: settings.truncation_side },
        );
        let threads = TextThreads::start(options.tokenizer_threads.unwrap_or_else(|| cores().len()))?;
        Ok(Self {
            runner: Arc::new(runner.map_err(unusable)?),
            threads: Arc::new(threads),
            names: devices.names().to_vec(),
            devices: Arc::new(devices),
            report: loaded.report().clone(),
        })
    }

    /// The report of loading the model.
    pub fn report(&self) -> &LoadReport {
        &self.report
    }

    /// Device names, as configured.
    pub fn devices(&self) -> &[String] {
        &self.names
    }
}

impl Annotator for TaskPool {
    fn spec(&self) -> &TaskSpec {
        &self.runner.spec
    }

    fn annotate(&self, inputs: Vec<AnnotateInput>) -> BoxFuture<'static, Result<Vec<Annotated>>> {
        let (runner, threads, devices) =
            (Arc::clone(&self.runner), Arc::clone(&self.threads), Arc::clone(&self.devices));
        async move {
            let mut annotations = Vec::with_capacity(inputs.len());
            for window in inputs.chunks(WINDOW_TEXTS) {
                annotations.extend(annotate(&runner, &threads, &devices, window.to_vec()).await?);
            }
            Ok(annotations)
        }
        .boxed()
    }
}

/// An input with its encodings and, once computed, their outputs.
struct EncodedInput {
    input: AnnotateInput,
    encodings: std::result::Result<Vec<Encoding>, String>,
    outputs: Vec<TaskOutput>,
}

async fn annotate(
    runner: &Arc<TaskRunner>,
    threads: &TextThreads,
    devices: &Devices<TaskInput, TaskOutput>,
    inputs: Vec<AnnotateInput>,
) -> Result<Vec<Annotated>> {
    let encoder = Arc::clone(runner);
    let encode = move |input: AnnotateInput| {
        let encodings = catch_panic(|| encoder.encode(&input).map_err(BackendError::Input)).map_err(refusal_message);
        EncodedInput { input, encodings, outputs: Vec::new() }
    };
    let mut encoded = threads.map(inputs, encode).await?;
    let mut model_inputs = Vec::new();
    for one in &encoded {
        let Ok(encodings) = &one.encodings else { continue };
        model_inputs.extend(encodings.iter().map(|encoding| runner.model_input(encoding)));
    }
    let mut outputs = run_or_retry_singly(devices, model_inputs).await?.into_iter();
    for one in &mut encoded {
        let count = one.encodings.as_ref().map_or(0, Vec::len);
        let input_outputs: std::result::Result<Vec<_>, String> = outputs.by_ref().take(count).collect();
        match input_outputs {
            Ok(input_outputs) => one.outputs = input_outputs,
            Err(message) => one.encodings = Err(message),
        }
    }
    let decoder = Arc::clone(runner);
    let decode = move |one: EncodedInput| {
        let encodings = one.encodings?;
        let annotation = || decoder.annotation(&one.input, &encodings, &one.outputs).map_err(BackendError::Input);
        catch_panic(annotation).map_err(refusal_message)
    };
    threads.map(encoded, decode).await
}

/// Refuses an output with numbers that are not finite.
fn check_output(output: TaskOutput) -> std::result::Result<TaskOutput, String> {
    match &output {
        TaskOutput::Logits(logits) => check_finite(logits)?,
        TaskOutput::TopTokens(masks) => {
            masks.iter().flatten().try_for_each(|(_, probability)| check_finite(&[*probability]))?;
        }
        TaskOutput::Generated(_) => {}
    }
    Ok(output)
}

/// The output of each input, or why it has none: if a call is refused, its inputs are retried one by one.
async fn run_or_retry_singly(
    devices: &Devices<TaskInput, TaskOutput>,
    inputs: Vec<TaskInput>,
) -> Result<Vec<std::result::Result<TaskOutput, String>>> {
    match devices.run(inputs.clone()).await {
        Ok(outputs) => Ok(outputs.into_iter().map(check_output).collect()),
        Err(BackendError::Input(_)) => {
            let mut outputs = Vec::with_capacity(inputs.len());
            for input in inputs {
                outputs.push(match devices.run(vec![input]).await {
                    Ok(output) => {
                        let output = output.into_iter().next();
                        output.ok_or_else(|| "the model returned no output".to_owned()).and_then(check_output)
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

/// A model with the head of a task.
struct AnnotationModel {
    files: ModelFiles,
    spec: TaskSpec,
    options: LoadOptions,
}

impl DeviceModel for AnnotationModel {
    type Loaded = HeadModel;
    type Input = TaskInput;
    type Output = TaskOutput;

    fn load(&self, device: &Hardware) -> std::result::Result<HeadModel, ModelError> {
        HeadModel::load(&self.files, head_kind(&self.spec), &self.options, device)
    }

    fn is_spread(&self, gpus: &[Arc<Gpu>]) -> std::result::Result<bool, ModelError> {
        HeadModel::is_spread(&self.files, head_kind(&self.spec), &self.options, gpus)
    }

    fn report(loaded: &HeadModel) -> &LoadReport {
        loaded.report()
    }

    fn batch_tokens(loaded: &HeadModel) -> Option<usize> {
        loaded.batch_tokens()
    }

    fn compute(&self, loaded: &HeadModel, threads: &DeviceThreads, inputs: &[TaskInput]) -> Result<Vec<TaskOutput>> {
        threads.run(|| outputs(loaded, &self.spec, inputs))
    }
}

fn outputs(
    model: &HeadModel,
    spec: &TaskSpec,
    inputs: &[TaskInput],
) -> std::result::Result<Vec<TaskOutput>, ModelError> {
    let batch = || {
        let rows: Vec<Vec<u32>> = inputs.iter().map(|input| input.input_ids.clone()).collect();
        let types: Vec<Vec<u32>> = inputs.iter().map(|input| input.token_types.clone()).collect();
        PackedBatch::with_token_types(&rows, &types)
    };
    match spec {
        TaskSpec::Generate(generation) => {
            let generate = |input: &TaskInput| model.generate(&input.input_ids, generation).map(TaskOutput::Generated);
            inputs.iter().map(generate).collect()
        }
        TaskSpec::FillMask { top_k } => {
            let positions: Vec<Vec<usize>> = inputs.iter().map(|input| input.mask_positions.clone()).collect();
            let mut logits = model.mask_logits(&batch()?, &positions)?.into_iter();
            let input_masks = |count: usize| logits.by_ref().take(count).map(|row| top_tokens(&row, *top_k)).collect();
            Ok(positions.iter().map(Vec::len).map(input_masks).map(TaskOutput::TopTokens).collect())
        }
        _ => Ok(model.forward(&batch()?)?.into_iter().map(TaskOutput::Logits).collect()),
    }
}
