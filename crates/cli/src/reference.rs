//! The reference pages are generated from the definitions: `docs/reference/commands.md` from the arguments of the
//! commands, the key tables of `docs/reference/pipeline.md` from the JSON Schema.
//!
//! Only the text between a line `<!-- generated: NAME -->` and the next `<!-- end generated -->` is replaced. `make
//! reference` rewrites the pages.

use std::{collections::BTreeMap, env, fmt::Write, fs, path::Path};

use clap::{Arg, Command, CommandFactory};
use serde_json::{Map, Value};

use crate::cli::Cli;

/// Rewrites the pages if it is set.
const UPDATE: &str = "POLYLANCE_UPDATE_REFERENCE";
const END: &str = "<!-- end generated -->";

/// Generated texts by the name of their marker.
type Sections = BTreeMap<String, String>;

#[test]
fn reference_pages_match_the_definitions() {
    for (page, sections) in [("commands.md", command_sections()), ("pipeline.md", pipeline_sections())] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference").join(page);
        let committed = fs::read_to_string(&path).unwrap();
        let generated = with_sections(&committed, &sections);
        if env::var_os(UPDATE).is_some() {
            fs::write(&path, generated).unwrap();
        } else {
            assert!(committed == generated, "docs/reference/{page} is out of date: run `make reference`");
        }
    }
}

/// The page with each section between its markers. Every section must have a place on the page.
fn with_sections(page: &str, sections: &Sections) -> String {
    let mut page = page.to_owned();
    for (name, section) in sections {
        let begin = format!("<!-- generated: {name} -->\n");
        let start = page.find(&begin).unwrap_or_else(|| panic!("the page has no line {begin}")) + begin.len();
        let end = start + page[start..].find(END).unwrap_or_else(|| panic!("{name} has no line {END}"));
        page.replace_range(start..end, &format!("\n{section}\n"));
    }
    page
}

/// The text as a cell of a table. The first paragraph of a help has no full stop, and gets one if there are others.
fn cell(text: &str) -> String {
    let paragraph = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut paragraphs: Vec<String> = text.split("\n\n").map(paragraph).collect();
    if let [first, _, ..] = paragraphs.as_mut_slice()
        && !first.ends_with(['.', ':', ';'])
    {
        first.push('.');
    }
    paragraphs.join(" ").trim_end().replace('|', "\\|")
}

/// Values with their meanings, at the end of a cell.
fn value_list(values: impl IntoIterator<Item = (String, String)>) -> String {
    let line = |(value, meaning): (String, String)| match meaning.as_str() {
        "" => format!("<br>`{value}`"),
        meaning => format!("<br>`{value}`: {}", cell(meaning)),
    };
    values.into_iter().map(line).collect()
}

/// `overview`, a table of the commands, and `commands`, a chapter for each.
fn command_sections() -> Sections {
    let mut program = Cli::command();
    program.build();
    let (mut overview, mut chapters) = ("| command | use |\n|---|---|\n".to_owned(), String::new());
    for command in commands(&program) {
        let name = command.get_bin_name().unwrap();
        let about = cell(&command.get_about().unwrap().to_string());
        let anchor = name.replace(' ', "-");
        writeln!(overview, "| [`{name}`](#{anchor}) | {about} |").unwrap();
        write_command(&mut chapters, command);
    }
    [("overview", overview), ("commands", chapters)].map(|(name, text)| (name.to_owned(), text)).into()
}

/// The commands that run something, in the order of the help.
fn commands(command: &Command) -> Vec<&Command> {
    let subcommands = command.get_subcommands().filter(|command| command.get_name() != "help");
    subcommands.flat_map(|command| if command.has_subcommands() { commands(command) } else { vec![command] }).collect()
}

fn write_command(text: &mut String, command: &Command) {
    let about = command.get_long_about().or_else(|| command.get_about()).unwrap();
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ");
    let name = command.get_bin_name().unwrap();
    write!(text, "## {name}\n\n{about}\n\n```text\n{usage}\n```\n\n").unwrap();
    let arguments = command.get_arguments().filter(|arg| !["help", "version"].contains(&arg.get_id().as_str()));
    let (mut headings, mut by_heading) = (Vec::new(), BTreeMap::<_, Vec<&Arg>>::new());
    for argument in arguments {
        let heading = argument.get_help_heading().unwrap_or_default();
        if !headings.contains(&heading) {
            headings.push(heading);
        }
        by_heading.entry(heading).or_default().push(argument);
    }
    for heading in headings {
        if !heading.is_empty() {
            write!(text, "{heading}:\n\n").unwrap();
        }
        text.push_str("| argument | default | meaning |\n|---|---|---|\n");
        for argument in &by_heading[heading] {
            write_argument(text, argument);
        }
        text.push('\n');
    }
    if let Some(help) = command.get_after_help() {
        write!(text, "```text\n{help}\n```\n\n").unwrap();
    }
}

fn write_argument(text: &mut String, argument: &Arg) {
    let short = argument.get_short().filter(|_| argument.get_long().is_some());
    let name = short.map(|short| format!("-{short}, ")).unwrap_or_default() + &argument.to_string();
    let help = argument.get_long_help().or_else(|| argument.get_help()).unwrap().to_string();
    let takes_value = argument.get_action().takes_values();
    let defaults: Vec<_> = argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    let shown = takes_value && !defaults.is_empty() && !argument.is_hide_default_value_set();
    // A default that is not a value stands at the end of the help.
    let (mut meaning, default) = match help.trim_end_matches(']').split_once("[default: ") {
        Some((meaning, default)) if help.ends_with(']') && !default.contains('[') => (cell(meaning), cell(default)),
        _ if shown => (cell(&help), format!("`{}`", defaults.join(","))),
        _ if argument.is_required_set() => (cell(&help), "required".to_owned()),
        _ => (cell(&help), String::new()),
    };
    if takes_value {
        let values = argument.get_possible_values();
        let help = |value: &clap::builder::PossibleValue| value.get_help().map(ToString::to_string).unwrap_or_default();
        meaning += &value_list(values.iter().map(|value| (value.get_name().to_owned(), help(value))));
    }
    writeln!(text, "| `{}` | {default} | {meaning} |", name.replace('|', "\\|")).unwrap();
}

/// A table of keys for each section of the pipeline file, by the name of the section.
fn pipeline_sections() -> Sections {
    let schema: Value = serde_json::from_str(&polylance_config::json_schema_text()).unwrap();
    let section = |(name, property): (&String, &Value)| {
        let mut text = "| key | type | default | meaning |\n|---|---|---|---|\n".to_owned();
        let fields = definition(&schema, property.get("items").unwrap_or(property));
        // The keys of an entry of a list stand alone: `[[annotate]]` is its header.
        let prefix = if property.get("items").is_some() { String::new() } else { format!("{name}.") };
        write_keys(&mut text, &schema, fields, &prefix);
        (name.clone(), text)
    };
    properties(&schema).iter().filter(|(name, _)| *name != "version").map(section).collect()
}

fn properties(object: &Value) -> &Map<String, Value> {
    object["properties"].as_object().unwrap()
}

/// The schema that a property refers to, without the null of an optional one.
fn definition<'s>(schema: &'s Value, property: &'s Value) -> &'s Value {
    if let Some(options) = property["anyOf"].as_array().filter(|options| options.iter().any(is_null)) {
        return definition(schema, options.iter().find(|option| !is_null(option)).unwrap());
    }
    match property["$ref"].as_str() {
        Some(reference) => schema.pointer(reference.trim_start_matches('#')).unwrap(),
        None => property,
    }
}

fn is_null(schema: &Value) -> bool {
    schema["type"] == "null"
}

/// A row for each key, required ones first; the keys of a nested object in place of the object.
fn write_keys(text: &mut String, schema: &Value, object: &Value, prefix: &str) {
    let is_required = |key: &str| object["required"].as_array().is_some_and(|keys| keys.iter().any(|name| name == key));
    let mut keys: Vec<_> = properties(object).iter().collect();
    keys.sort_by_key(|(key, _)| (!is_required(key), *key));
    for (key, property) in keys {
        let defined = definition(schema, property);
        if defined.get("properties").is_some() {
            write_keys(text, schema, defined, &format!("{prefix}{key}."));
            continue;
        }
        let default = match property.get("default") {
            _ if is_required(key) => "required".to_owned(),
            None | Some(Value::Null) => String::new(),
            Some(default) => format!("`{default}`"),
        };
        let meaning = cell(property["description"].as_str().unwrap_or_default());
        let values = value_list(enum_values(defined));
        writeln!(text, "| `{prefix}{key}` | {} | {default} | {meaning}{values} |", type_of(schema, defined)).unwrap();
    }
}

/// The values of an enum with their descriptions.
fn enum_values(defined: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let values = defined["oneOf"].as_array().into_iter().flatten();
    values.map(|value| (text(&value["const"]), text(&value["description"]))).collect()
}

/// The type in words, with its minimum.
fn type_of(schema: &Value, defined: &Value) -> String {
    if defined.get("oneOf").is_some() {
        return "enum".to_owned();
    }
    if let Some(options) = defined["anyOf"].as_array() {
        return options.iter().map(|option| type_of(schema, option)).collect::<Vec<_>>().join(" or ");
    }
    let name = match &defined["type"] {
        Value::Array(names) => names.iter().filter_map(Value::as_str).find(|name| *name != "null"),
        name => name.as_str(),
    };
    let name = match name.unwrap_or_default() {
        "array" => format!("list of {}", type_of(schema, definition(schema, &defined["items"]))),
        name => name.to_owned(),
    };
    match defined["minimum"].as_u64() {
        Some(minimum) if minimum > 0 => format!("{name} ≥ {minimum}"),
        _ => name,
    }
}
