//! `polylance predict`

use std::sync::Arc;

use anyhow::Context;
use polylance_backend::{AnnotateInput, Annotated, Annotation, Annotator, LabelScore, TokenScore};
use polylance_engine::models;
use polylance_schema::{TaskName, TaskSpec};
use polylance_worker::TaskPool;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    args::{ComputeArgs, TaskArgs, word},
    error::Result,
    exit::ExitStatus,
    output::Printer,
    stdin::lines,
};

/// Maximum number of lines that are computed together.
const MAX_BATCH_LINES: usize = 64;

/// Run a model's head on lines from stdin; one JSON object per line on stdout, in order
///
/// A line is a text, or for some tasks a JSON object: qa `{"question": …, "context": …}`, choose `{"text": …,
/// "choices": […]}`, rerank `{"query": …, "passages": […]}`. `start` and `end` count characters, and `text` is exactly
/// that slice of the input.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Model with the head: a folder (local, s3://, gs:// or az://) or a hub name
    #[arg(long, value_name = "MODEL")]
    model: String,
    /// Task to run
    #[arg(long, value_name = "TASK", value_parser = word::<TaskName>())]
    task: TaskName,
    #[command(flatten)]
    compute: ComputeArgs,
    #[command(flatten)]
    options: TaskArgs,
}

const AFTER_HELP: &str = "\
Examples:
  echo 'Ada Lovelace was born in London' | polylance predict --task ner --model ./entities --aggregation first
  echo 'Der Dax steigt' | polylance predict --task zero-shot --model ./xnli --labels sport,economy,politics
  echo '{\"question\": \"Who?\", \"context\": \"It was Ada.\"}' | polylance predict --task qa --model ./squad";

pub(crate) async fn run(args: Args, printer: &mut Printer) -> Result<ExitStatus> {
    let spec = args.options.spec(args.task)?;
    let files = models::find(&args.model).await?;
    let options = args.compute.select()?.options();
    let pool = tokio::task::spawn_blocking(move || TaskPool::open(&files, spec, &options)).await??;
    let pool: Arc<dyn Annotator> = Arc::new(pool);

    let mut lines = lines(MAX_BATCH_LINES);
    let mut waiting = Vec::with_capacity(MAX_BATCH_LINES);
    let mut done = 0;
    while lines.recv_many(&mut waiting, MAX_BATCH_LINES).await > 0 {
        // The lines before a bad one are still computed.
        let mut requests = Vec::with_capacity(waiting.len());
        let mut bad = None;
        for (at, line) in waiting.drain(..).enumerate() {
            let number = done + at + 1;
            match line
                .and_then(|line| Request::parse(line, pool.spec()).with_context(|| format!("line {number} of stdin")))
            {
                Ok(request) => requests.push(request),
                Err(error) => {
                    bad = Some(error);
                    break;
                }
            }
        }
        let first = done + 1;
        done += requests.len();
        answer(requests, first, pool.as_ref(), printer).await?;
        if let Some(error) = bad {
            return Err(error);
        }
    }
    Ok(ExitStatus::Done)
}

async fn answer(requests: Vec<Request>, first: usize, pool: &dyn Annotator, printer: &mut Printer) -> Result<()> {
    let inputs: Vec<AnnotateInput> = requests.iter().flat_map(|request| request.inputs.clone()).collect();
    let mut answers = pool.annotate(inputs).await?.into_iter();
    for (at, request) in requests.into_iter().enumerate() {
        let answers: Vec<Annotated> = answers.by_ref().take(request.inputs.len()).collect();
        let answers: Result<Vec<Annotation>, String> = answers.into_iter().collect();
        let answers = answers.map_err(|message| anyhow::anyhow!("line {} of stdin: {message}", first + at))?;
        printer.json(&request.json(answers))?;
    }
    Ok(printer.flush()?)
}

/// A line of stdin as inputs of the head.
#[derive(Debug)]
struct Request {
    inputs: Vec<AnnotateInput>,
}

#[derive(Deserialize)]
struct Question {
    question: String,
    context: String,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(alias = "prompt")]
    text: String,
    choices: Vec<String>,
}

#[derive(Deserialize)]
struct Ranking {
    query: String,
    passages: Vec<String>,
}

impl Request {
    fn parse(line: String, spec: &TaskSpec) -> Result<Self> {
        let inputs = match spec {
            TaskSpec::Qa { .. } => {
                let Question { question, context } = object(&line, r#"{"question": …, "context": …}"#)?;
                vec![AnnotateInput { text: context, question: Some(question), choices: Vec::new() }]
            }
            TaskSpec::Choose => {
                let Choice { text, choices } = object(&line, r#"{"text": …, "choices": […]}"#)?;
                vec![AnnotateInput { text, question: None, choices }]
            }
            TaskSpec::Rerank => {
                let Ranking { query, passages } = object(&line, r#"{"query": …, "passages": […]}"#)?;
                let input = |text| AnnotateInput { text, question: Some(query.clone()), choices: Vec::new() };
                passages.into_iter().map(input).collect()
            }
            _ => vec![AnnotateInput { text: line, ..AnnotateInput::default() }],
        };
        Ok(Self { inputs })
    }

    fn json(&self, answers: Vec<Annotation>) -> Value {
        if let Some(Annotation::Relevance(_)) = answers.first() {
            let score = |answer: &Annotation| if let Annotation::Relevance(score) = answer { *score } else { f32::NAN };
            return json!({"scores": answers.iter().map(score).collect::<Vec<_>>()});
        }
        match answers.into_iter().next() {
            None => json!({"scores": []}),
            Some(Annotation::Labels(labels)) => json!({"labels": labels.iter().map(label).collect::<Vec<_>>()}),
            Some(Annotation::Spans(spans)) => {
                let span = |span: &polylance_backend::Span| {
                    json!({"label": span.label, "score": span.score, "start": span.chars.start, "end": span.chars.end,
                           "text": span.text})
                };
                json!({"spans": spans.iter().map(span).collect::<Vec<_>>()})
            }
            Some(Annotation::Answers(answers)) => {
                let answer = |answer: &polylance_backend::Answer| {
                    json!({"answer": answer.text, "score": answer.score, "start": answer.chars.start,
                           "end": answer.chars.end, "text": answer.text})
                };
                json!({"answers": answers.iter().map(answer).collect::<Vec<_>>()})
            }
            Some(Annotation::Masks(masks)) => match &masks[..] {
                [tokens] => json!({"tokens": tokens.iter().map(token).collect::<Vec<_>>()}),
                masks => {
                    let tokens = |tokens: &Vec<TokenScore>| tokens.iter().map(token).collect::<Vec<_>>();
                    json!({"masks": masks.iter().map(tokens).collect::<Vec<_>>()})
                }
            },
            Some(Annotation::Text(text)) => json!({"text": text}),
            Some(Annotation::Choices(scores)) => {
                let choices = self.inputs.iter().flat_map(|input| &input.choices).zip(&scores);
                let choice = |(choice, score): (&String, &f32)| json!({"choice": choice, "score": score});
                json!({"choices": choices.map(choice).collect::<Vec<_>>()})
            }
            Some(Annotation::Relevance(score)) => json!({"scores": [score]}),
        }
    }
}

fn label(label: &LabelScore) -> Value {
    json!({"label": label.label, "score": label.score})
}

fn token(token: &TokenScore) -> Value {
    json!({"token": token.token, "score": token.score})
}

fn object<T: DeserializeOwned>(line: &str, expected: &str) -> Result<T> {
    serde_json::from_str(line).with_context(|| format!("expected {expected}"))
}

#[cfg(test)]
mod tests {
    use polylance_backend::Span;

    use super::*;

    #[test]
    fn line_is_parsed_by_task() {
        let qa =
            TaskSpec::Qa { top_k: 1, max_answer_tokens: 15, doc_stride: 128, null_answer: false, align_to_words: true };
        let request = Request::parse(r#"{"question": "who?", "context": "Ada."}"#.into(), &qa).unwrap();
        assert_eq!((request.inputs[0].question.as_deref(), request.inputs[0].text.as_str()), (Some("who?"), "Ada."));
        let error = Request::parse(r#"{"question": "who?"}"#.into(), &qa).unwrap_err();
        let words = format!("{error:#}");
        assert!(words.contains("expected {\"question\"") && words.contains("missing field `context`"), "{words}");
        let ranking = Request::parse(r#"{"query": "q", "passages": ["a", "b"]}"#.into(), &TaskSpec::Rerank).unwrap();
        let scores = ranking.json(vec![Annotation::Relevance(0.5), Annotation::Relevance(0.25)]);
        assert_eq!(scores, json!({"scores": [0.5, 0.25]}));
        let none = Request::parse(r#"{"query": "q", "passages": []}"#.into(), &TaskSpec::Rerank).unwrap();
        assert_eq!(none.json(vec![]), json!({"scores": []}));
    }

    #[test]
    fn output_has_the_shape_of_the_task() {
        let request =
            || Request { inputs: vec![AnnotateInput { choices: vec!["a".into()], ..AnnotateInput::default() }] };
        let token = || TokenScore { token: "sea".into(), score: 0.5 };
        let one = json!({"token": "sea", "score": 0.5});
        assert_eq!(request().json(vec![Annotation::Masks(vec![vec![token()]])]), json!({"tokens": [one]}));
        let two = Annotation::Masks(vec![vec![token()], vec![]]);
        assert_eq!(request().json(vec![two]), json!({"masks": [[one], []]}));
        let choices = request().json(vec![Annotation::Choices(vec![1.0])]);
        assert_eq!(choices, json!({"choices": [{"choice": "a", "score": 1.0}]}));
        let span = Span { label: "PER".into(), score: 0.5, chars: 1..4, text: "Ada".into(), continues: false };
        let expected = json!({"spans": [{"label": "PER", "score": 0.5, "start": 1, "end": 4, "text": "Ada"}]});
        assert_eq!(request().json(vec![Annotation::Spans(vec![span])]), expected);
    }
}
