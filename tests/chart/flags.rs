//! Flags of `portico run` as values of the chart: their lines in values.yaml and their schemas.

use clap::{Arg, ArgAction};
use serde_json::{Map, Value, json};

/// Address and port as the program parses them. Port 0 is not allowed, since other objects refer to the port.
const ADDRESS: &str = r"(localhost|[0-9.]+|\[[0-9A-Fa-f:.]+\]):[1-9][0-9]{0,4}";

/// Key of the last section in values.yaml, which has all flags.
const CONFIG_KEY: &str = "config:";

/// Returns values.yaml with the current flags.
pub(crate) fn values_with_flags(values: &str) -> String {
    let (before, _) = values.split_once(&format!("\n{CONFIG_KEY}")).expect("values.yaml has config");
    let mut text = format!("{before}\n{CONFIG_KEY}\n");
    for flag in flags() {
        text.push_str(&wrapped(&format!("{}.", help(&name(&flag)))));
        text.push_str(&format!("  {}: null\n", name(&flag)));
    }
    text
}

/// Schemas of all flags by name.
pub(crate) fn schemas() -> Value {
    let schemas = flags().into_iter().map(|flag| {
        let mut schema = schema(&flag);
        schema.insert("description".to_owned(), json!(format!("{}.", help(&name(&flag)))));
        (name(&flag), Value::Object(schema))
    });
    Value::Object(schemas.collect())
}

/// Flags without a value.
pub(crate) fn switches() -> Vec<String> {
    let mut switches: Vec<String> = flags().iter().filter(|flag| is_switch(flag)).map(name).collect();
    switches.sort();
    switches
}

/// Environment variable of a flag, if the flag exists.
pub(crate) fn environment_variable(flag: &str) -> Option<String> {
    let flag = flags().into_iter().find(|known| name(known) == flag)?;
    Some(flag.get_env()?.to_str()?.to_owned())
}

/// Default of a flag as the help shows it.
pub(crate) fn default(flag: &str) -> Option<String> {
    let flag = flags().into_iter().find(|known| name(known) == flag)?;
    Some(flag.get_default_values().first()?.to_str()?.to_owned())
}

/// The help text of a flag.
pub(crate) fn help(flag: &str) -> String {
    let flag = flags().into_iter().find(|known| name(known) == flag).expect("the flag exists");
    flag.get_help().expect("every flag has help").to_string()
}

/// Flags of `portico run`, in the order of `--help`.
fn flags() -> Vec<Arg> {
    let root = portico::args::command();
    let run = root.find_subcommand("run").expect("there is run");
    let is_flag = |flag: &&Arg| flag.get_long().is_some_and(|long| long != "help");
    run.get_arguments().chain(root.get_arguments()).filter(is_flag).cloned().collect()
}

fn name(flag: &Arg) -> String {
    flag.get_long().expect("flags have a long name").to_owned()
}

fn is_switch(flag: &Arg) -> bool {
    matches!(flag.get_action(), ArgAction::SetTrue)
}

/// The schema of the value of a flag. An empty string counts as unset, since tools write it for missing values.
fn schema(flag: &Arg) -> Map<String, Value> {
    let value_names: Vec<String> = flag.get_value_names().into_iter().flatten().map(ToString::to_string).collect();
    let is_list = matches!(flag.get_action(), ArgAction::Append);
    let possible_values: Vec<String> =
        flag.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    let schema = if is_switch(flag) {
        json!({ "type": ["boolean", "null"] })
    } else if is_list {
        json!({ "type": ["array", "string", "null"], "items": { "type": "string", "minLength": 1 } })
    } else if !possible_values.is_empty() {
        json!({ "enum": choices(&possible_values) })
    } else {
        match value_names.first().map(String::as_str) {
            Some("NUMBER") => {
                // A flag without a limit by default accepts 0, to override another file of values.
                let has_no_limit = flag.get_default_values() == ["0"];
                json!({ "type": ["integer", "null"], "minimum": if has_no_limit { 0 } else { 1 } })
            }
            // Numbers with more digits could overflow in templates.
            Some("DURATION") => json!({ "type": ["string", "null"], "pattern": "^([0-9]{1,9}(ms|s|m|h))*$" }),
            Some("FRACTION") => json!({
                "type": ["number", "string", "null"], "minimum": 0, "maximum": 1, "pattern": "^([01]|[01]?\\.[0-9]+)?$",
            }),
            // Bytes without a unit can also be a number.
            Some("SIZE") => json!({
                "type": ["integer", "string", "null"], "minimum": 0, "pattern": "^([0-9]+(B|[KMG]iB?)?)?$",
            }),
            // The only address flag that does not accept `off`.
            Some("ADDR") if flag.get_long() == Some("echo") => {
                json!({ "type": ["string", "null"], "pattern": format!("^({ADDRESS})?$") })
            }
            // YAML parses a bare `off` as false; the templates reject true.
            Some("ADDR") => json!({ "type": ["string", "boolean", "null"], "pattern": format!("^(off|{ADDRESS})?$") }),
            // The only file flag that accepts `off`.
            Some("FILE") if flag.get_long() == Some("access-log") => {
                json!({ "type": ["string", "boolean", "null"] })
            }
            _ => json!({ "type": ["string", "null"] }),
        }
    };
    let Value::Object(schema) = schema else { unreachable!("each is an object") };
    schema
}

/// Possible values, also as YAML parses them without quotes: `off` as false, 1.3 as a number.
fn choices(possible: &[String]) -> Vec<Value> {
    let mut choices: Vec<Value> = possible.iter().map(|word| json!(word)).collect();
    for word in possible {
        match word.as_str() {
            "on" => choices.push(json!(true)),
            "off" => choices.push(json!(false)),
            word => choices.extend(word.parse::<f64>().ok().map(|number| json!(number))),
        }
    }
    choices.extend([json!(""), Value::Null]);
    choices
}

/// A comment in values.yaml with bounded line length.
fn wrapped(text: &str) -> String {
    const MAX_LENGTH: usize = 130;
    let mut lines = String::new();
    let mut line = String::from("  #");
    for word in text.split_whitespace() {
        if line.chars().count() + word.chars().count() + 1 > MAX_LENGTH {
            lines.push_str(&line);
            lines.push('\n');
            "  #".clone_into(&mut line);
        }
        line.push(' ');
        line.push_str(word);
    }
    lines + &line + "\n"
}
