//! The committed baseline, `benches/baseline.toml`: a section for each kind of figure, and a line for each case.

use std::fs;
use std::path::PathBuf;

/// Compares all cases of a section with the baseline; with `UPDATE=1`, writes them instead. A figure may differ by
/// `tolerance` percent. The error has a line for each case that differs, and how to accept the new figures.
pub fn compare(section: &str, unit: &str, measured: &[(&str, u64)], tolerance: f64) -> Result<(), String> {
    let path = path();
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    if std::env::var_os("UPDATE").is_some() {
        return fs::write(&path, replace_figures(&text, section, measured)).map_err(|error| error.to_string());
    }
    let differences = differences(&figures(&text, section), unit, measured, tolerance);
    if differences.is_empty() {
        return Ok(());
    }
    Err(format!("{}\nIf these changes are intended, run UPDATE=1 make baseline", differences.join("\n")))
}

/// The path of the baseline, which does not depend on the working folder.
fn path() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "baseline.toml"].iter().collect()
}

/// A line for each measured case whose figure differs or is missing, and for each case that was not measured.
fn differences(expected: &[(String, u64)], unit: &str, measured: &[(&str, u64)], tolerance: f64) -> Vec<String> {
    let mut differences = Vec::new();
    for (name, figure) in measured {
        let Some((_, expected)) = expected.iter().find(|(expected_name, _)| expected_name == name) else {
            differences.push(format!("{name}: {figure} {unit}, and benches/baseline.toml has no such case"));
            continue;
        };
        let difference = (*figure as f64 - *expected as f64) * 100.0;
        if difference.abs() > tolerance * *expected as f64 {
            let percent = difference / *expected as f64;
            differences.push(format!(
                "{name}: {figure} {unit}, and {expected} in benches/baseline.toml: {percent:+.1} %, where {tolerance} % \
                 are allowed"
            ));
        }
    }
    let stale = expected.iter().filter(|(name, _)| !measured.iter().any(|(measured_name, _)| measured_name == name));
    differences.extend(stale.map(|(name, _)| format!("{name}: in benches/baseline.toml, but not measured")));
    differences
}

/// The lines `"name" = figure` of a section.
fn figures(text: &str, section: &str) -> Vec<(String, u64)> {
    let (_, section_text, _) = split_at_section(text, section);
    section_text.lines().filter_map(parse_line).map(|(name, figure)| (name.to_owned(), figure)).collect()
}

/// The name and the figure of a line; `None` for other lines.
fn parse_line(line: &str) -> Option<(&str, u64)> {
    let (name, figure) = line.strip_prefix('"')?.split_once("\" = ")?;
    Some((name, figure.parse().ok()?))
}

/// The text of the file with these figures in a section, whose comments are kept.
fn replace_figures(text: &str, section: &str, figures: &[(&str, u64)]) -> String {
    let (before, section_text, after) = split_at_section(text, section);
    let comments: String =
        section_text.lines().filter(|line| line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    let lines: String = figures.iter().map(|(name, figure)| format!("\"{name}\" = {figure}\n")).collect();
    let gap = if after.is_empty() { "" } else { "\n" };
    format!("{before}[{section}]\n{comments}{lines}{gap}{after}")
}

/// The text before the header of a section, its lines, and the text from the next header.
fn split_at_section<'t>(text: &'t str, section: &str) -> (&'t str, &'t str, &'t str) {
    let header = format!("[{section}]\n");
    let (before, rest) = text.split_once(&header).unwrap_or((text, ""));
    let next = rest.find("\n[").map_or(rest.len(), |at| at + 1);
    (before, &rest[..next], &rest[next..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# All.\n\n[one]\n# Of one.\n\"a, b\" = 100\n\"c\" = 7\n\n[two]\n\"c\" = 1\n";

    #[test]
    fn differences_beyond_the_tolerance_are_named_with_both_figures() {
        let one = figures(TEXT, "one");
        let differences_of = |found: &[(&str, u64)], tolerance| differences(&one, "units", found, tolerance);
        assert_eq!(differences_of(&[("a, b", 103), ("c", 7)], 3.0), Vec::<String>::new());
        let differing = differences_of(&[("a, b", 96), ("c", 7)], 3.0);
        let expected = "a, b: 96 units, and 100 in benches/baseline.toml: -4.0 %, where 3 % are allowed";
        assert_eq!(differing, [expected]);
        assert!(differences_of(&[("a, b", 100), ("c", 8)], 0.0)[0].starts_with("c: 8 units, and 7 in"));
        assert!(differences_of(&[("a, b", 100), ("c", 7), ("d", 1)], 0.0)[0].contains("has no such case"));
        assert!(differences_of(&[("c", 7)], 0.0)[0].starts_with("a, b: in benches/baseline.toml, but not measured"));
    }

    #[test]
    fn figures_of_one_section_are_replaced() {
        let text = replace_figures(TEXT, "one", &[("c", 8), ("d", 9)]);
        assert_eq!(text, "# All.\n\n[one]\n# Of one.\n\"c\" = 8\n\"d\" = 9\n\n[two]\n\"c\" = 1\n");
        let text = replace_figures(TEXT, "two", &[("c", 2)]);
        assert_eq!(text, TEXT.replace("\"c\" = 1", "\"c\" = 2"));
        assert_eq!(replace_figures("", "new", &[("c", 2)]), "[new]\n\"c\" = 2\n");
    }
}
