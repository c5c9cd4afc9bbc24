//! The lines that are redrawn on a terminal.

use cutover_formats::Phase;

use super::gauge::View;
use crate::report::time;

/// Columns that every terminal has.
const WIDTH: usize = 78;
/// Columns of a bar.
const BAR: u64 = 24;
/// Columns of the words at the left.
const INDENT: usize = 15;

/// All lines. `bold` marks the phase with an escape sequence besides its brackets.
pub(super) fn text(view: &View, bold: bool) -> String {
    let launches = &view.launches;
    let kept: Vec<String> = view.stores.iter().map(|(name, kept)| format!("{name} holds {kept}")).collect();
    let mut lines = vec![
        String::new(),
        row("phase", &way(&view.way, view.place, bold)),
        row(
            "launches",
            &format!(
                "{}/s, p99 {}; {} answered, {} failed",
                view.per_second,
                time(view.p99),
                launches.started + launches.conflicts + launches.failed,
                launches.failed
            ),
        ),
        row("instances", &format!("{} open; {}", view.open, kept.join(", "))),
    ];
    if let (copied, of @ 1..) = view.copied {
        lines.push(row("definitions", &format!("{} {copied} of {of} copied", bar(copied, of))));
    }
    if let Some((name, gone, of)) = &view.drained {
        lines.push(row("drained", &format!("{} {gone} of {of} have left {name}", bar(*gone, *of))));
    }
    lines.push(row("time left", &view.left));
    lines.join("\n")
}

fn row(word: &str, text: &str) -> String {
    format!("  {word:<width$}{text}", width = INDENT - 2)
}

fn bar(done: u64, of: u64) -> String {
    let full = (done.min(of) * BAR).checked_div(of).unwrap_or(BAR);
    let (full, empty) = (full as usize, (BAR - full) as usize);
    format!("[{}{}]", "#".repeat(full), ".".repeat(empty))
}

/// The phases in a row, or in two where they do not fit, with the one that it is in marked.
fn way(phases: &[Phase], place: Option<usize>, bold: bool) -> String {
    let (mut out, mut column) = (String::new(), INDENT);
    for (at, phase) in phases.iter().enumerate() {
        let here = place == Some(at);
        let word = if here { format!("[{phase}]") } else { phase.name().to_owned() };
        let arrow = if at == 0 { "" } else { " > " };
        if column + arrow.len() + word.len() > WIDTH {
            out.push_str(" >\n");
            out.push_str(&" ".repeat(INDENT));
            column = INDENT;
        } else {
            out.push_str(arrow);
            column += arrow.len();
        }
        column += word.len();
        out.push_str(&if here && bold { format!("\x1b[1m{word}\x1b[0m") } else { word });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Launches;

    fn view() -> View {
        View {
            way: vec![
                Phase::Stable,
                Phase::PreMigration,
                Phase::Migration,
                Phase::PostMigration,
                Phase::Stable,
            ],
            place: Some(3),
            per_second: 201,
            p99: 1_340,
            launches: Launches { started: 900, conflicts: 40, ..Launches::default() },
            open: 12,
            stores: vec![("rocksdb".to_owned(), 30), ("sled".to_owned(), 400)],
            copied: (50, 100),
            drained: Some(("rocksdb".to_owned(), 90, 120)),
            left: "about 4 s".to_owned(),
        }
    }

    #[test]
    fn every_figure_has_its_line() {
        let shown = text(&view(), false);
        let expected = [
            "",
            "  phase        stable > pre_migration > migration > [post_migration] > stable",
            "  launches     201/s, p99 1.3 ms; 940 answered, 0 failed",
            "  instances    12 open; rocksdb holds 30, sled holds 400",
            "  definitions  [############............] 50 of 100 copied",
            "  drained      [##################......] 90 of 120 have left rocksdb",
            "  time left    about 4 s",
        ];
        assert_eq!(shown, expected.join("\n"));
        assert!(text(&view(), true).contains("> \x1b[1m[post_migration]\x1b[0m >"));
    }

    #[test]
    fn a_long_way_is_broken_and_no_line_is_too_wide() {
        let shown = way(&Phase::ALL, Some(6), false);
        assert_eq!(shown.lines().count(), 2, "{shown}");
        assert!(shown.lines().all(|line| line.len() <= WIDTH + " >".len()), "{shown}");
        assert!(shown.contains("[post_rollback]"));
    }

    #[test]
    fn what_has_not_begun_has_no_bar() {
        let mut view = view();
        (view.copied, view.drained, view.place) = ((0, 0), None, None);
        assert_eq!(text(&view, true).lines().count(), 5);
        assert_eq!(bar(0, 0), bar(5, 5));
    }
}
