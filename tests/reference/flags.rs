//! All flags of all commands, grouped by the headings of the help.

use std::fmt::Write;

use clap::{Arg, Command};

use crate::reference::cell;

const INTRODUCTION: &str = "# Flags

The output of `--help`, with the environment variable of each flag. A flag takes precedence over its variable. Lists in
variables are comma-separated; durations are written like `10s`, `500ms` or `1m30s`, sizes like `64KiB`. This page is
generated from the code.
";

pub(crate) fn page() -> String {
    let program = portico::args::command();
    let mut page = INTRODUCTION.to_owned();
    for command in program.get_subcommands().filter(|command| command.get_name() != "help") {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        writeln!(page, "\n## portico {}\n\n{about}.", command.get_name()).unwrap();
        for (heading, arguments) in by_heading(command) {
            if let Some(heading) = heading {
                writeln!(page, "\n### {heading} of {}", command.get_name()).unwrap();
            }
            page += "\n| flag | variable | default | |\n| --- | --- | --- | --- |\n";
            for argument in arguments {
                page += &row(argument);
            }
        }
    }
    page += "\n## Global flags\n\n| flag | variable | default | |\n| --- | --- | --- | --- |\n";
    for argument in program.get_arguments().filter(|argument| argument.is_global_set()) {
        page += &row(argument);
    }
    page
}

/// Flags of a command without the global ones, in the order of the help.
fn by_heading(command: &Command) -> Vec<(Option<&str>, Vec<&Arg>)> {
    let mut groups: Vec<(Option<&str>, Vec<&Arg>)> = Vec::new();
    for argument in command.get_arguments().filter(|argument| argument.get_id() != "help" && !argument.is_global_set())
    {
        let heading = argument.get_help_heading();
        match groups.iter_mut().find(|(known, _)| *known == heading) {
            Some((_, arguments)) => arguments.push(argument),
            None => groups.push((heading, vec![argument])),
        }
    }
    groups
}

fn row(argument: &Arg) -> String {
    let values: Vec<String> =
        argument.get_value_names().into_iter().flatten().map(|name| format!("<{name}>")).collect();
    let takes_value = argument.get_action().takes_values();
    let value = if takes_value { values.join(" ") } else { String::new() };
    let flag = match argument.get_long() {
        Some(long) if value.is_empty() => format!("--{long}"),
        Some(long) => format!("--{long} {value}"),
        None => value,
    };
    let variable = argument.get_env().map(|name| format!("`{}`", name.to_string_lossy())).unwrap_or_default();
    let defaults: Vec<_> = argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    let default = if defaults.is_empty() || !takes_value { String::new() } else { format!("`{}`", defaults.join(",")) };
    let mut description = argument.get_help().map(ToString::to_string).unwrap_or_default();
    let possible_values: Vec<String> = argument
        .get_possible_values()
        .iter()
        .filter(|_| takes_value)
        .map(|value| format!("`{}`", value.get_name()))
        .collect();
    if !possible_values.is_empty() {
        description = format!("{description}: {}", possible_values.join(", "));
    }
    format!("| `{}` | {variable} | {default} | {}. |\n", flag.trim(), cell(&description))
}
