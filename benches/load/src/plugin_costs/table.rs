//! The table of `docs/plugin-costs.md`.

use std::fmt::Write as _;

use anyhow::{Context, Result};

use super::cases::{Case, NOT_COUNTED};

/// What was counted for a case.
pub(super) struct Row {
    pub(super) case: &'static Case,
    /// Instructions.
    pub(super) per_request: u64,
}

/// Prints the table, and the list of plugins that are not in it. Each case is compared with the route without plugins
/// that got the same body.
pub(super) fn render(rows: &[Row]) -> String {
    let plain = |case: &Case| rows.iter().find(|row| row.case.plugin.is_empty() && row.case.content == case.content);
    let mut text = format!("{HEADER}\n| --- | --- | ---: | ---: |\n");
    for row in rows {
        let Case { plugin, setting, .. } = row.case;
        let name = if plugin.is_empty() { "no plugin".to_owned() } else { format!("[{plugin}](plugins/{plugin}.md)") };
        let reference = plain(row.case).map_or(row.per_request, |plain| plain.per_request);
        let (added, ratio) = if plugin.is_empty() {
            (row.per_request.to_string(), "1".to_owned())
        } else {
            let added = row.per_request as i64 - reference as i64;
            (format!("{added:+}"), format!("{:.2}", row.per_request as f64 / reference as f64))
        };
        // Writing to a String succeeds.
        writeln!(text, "| {name} | {setting} | {added} | {ratio} |").ok();
    }
    text.push_str("\n| not counted | why |\n| --- | --- |\n");
    for (plugins, reason) in NOT_COUNTED {
        let names: Vec<String> = plugins.split(", ").map(|name| format!("[{name}](plugins/{name}.md)")).collect();
        writeln!(text, "| {} | {reason} |", names.join(", ")).ok();
    }
    text
}

/// Replaces the table of a page, and what follows it.
pub(super) fn replace(page: &str, rows: &[Row]) -> Result<String> {
    let (before, _) = page.split_once(HEADER).with_context(|| format!("the page has no line `{HEADER}`"))?;
    Ok(format!("{before}{}", render(rows)))
}

const HEADER: &str = "| plugin | setting | instructions | ratio |";

#[cfg(test)]
mod tests {
    use super::super::cases::{CASES, PLAIN};
    use super::*;

    #[test]
    fn a_case_is_compared_with_the_route_of_the_same_body() {
        let case = CASES.iter().find(|case| case.plugin == "request-size-limiting").unwrap();
        let row = |case, per_request| Row { case, per_request };
        let rows = [row(&PLAIN[0], 1000), row(&PLAIN[1], 2000), row(case, 2500)];
        let text = replace(&format!("# Costs\n\n{HEADER}\n| old |\n"), &rows).unwrap();
        assert!(text.starts_with("# Costs\n\n| plugin |"), "{text}");
        assert!(text.contains("| no plugin | POST of JSON | 2000 | 1 |\n"), "{text}");
        let expected = "| [request-size-limiting](plugins/request-size-limiting.md) |  | +500 | 1.25 |\n";
        assert!(text.contains(expected), "{text}");
        assert!(!text.contains("old"), "{text}");
        assert!(replace("# Costs\n", &rows).is_err());
    }
}
