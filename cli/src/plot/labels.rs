//! Where the names of phases stand above the panels, so that none covers another or the pole of another.

/// A name and its place, in pixels.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Flag<'t> {
    /// The name.
    pub text: &'t str,
    /// Where its phase starts: its pole goes down from there.
    pub at: f64,
    /// The left edge of the name.
    pub left: f64,
    /// Rows above the panel; 0 is next to it.
    pub row: usize,
}

/// Pixels of a text. An estimate from above: the font is chosen by whoever shows the plot.
pub(super) fn width(text: &str, size: f64) -> f64 {
    text.chars().count() as f64 * size * 0.5
}

/// Places names, given with the starts of their phases from left to right.
///
/// A name hangs to the right of its pole like a flag, and lower flags start further right. So a pole passes only rows in
/// which nothing reaches it.
pub(super) fn place<'t>(names: &[(f64, &'t str)], right_edge: f64) -> Vec<Flag<'t>> {
    const SIZE: f64 = 14.0;
    const ROOM: f64 = 10.0;
    let mut flags: Vec<Flag<'t>> = Vec::with_capacity(names.len());
    for (at, text) in names.iter().rev() {
        let wide = width(text, SIZE) + ROOM;
        // At the right edge a name has to stand left of its pole, and so above everything that starts there.
        let left = at.min(right_edge - wide);
        let met = flags
            .iter()
            .filter(|flag| flag.left < left + wide && left < flag.left + width(flag.text, SIZE) + ROOM);
        let row = met.map(|flag| flag.row + 1).max().unwrap_or(0);
        flags.push(Flag { text, at: *at, left, row });
    }
    flags.reverse();
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_readable(flags: &[Flag<'_>]) {
        for (n, one) in flags.iter().enumerate() {
            for (m, other) in flags.iter().enumerate().filter(|(m, _)| *m != n) {
                let end = other.left + width(other.text, 14.0);
                let covered = other.left < one.left + width(one.text, 14.0) && one.left < end;
                assert!(!(covered && one.row == other.row), "{n} and {m} cover each other: {flags:?}");
                let crossed = other.left < one.at && one.at < end && other.row < one.row;
                assert!(!crossed, "the pole of {n} goes through {m}: {flags:?}");
            }
        }
    }

    #[test]
    fn names_of_long_phases_stand_in_one_row() {
        let flags = place(&[(80.0, "stable"), (300.0, "pre_migration"), (700.0, "stable")], 1200.0);
        assert!(flags.iter().all(|flag| flag.row == 0 && flag.left == flag.at));
    }

    #[test]
    fn names_of_short_phases_are_stacked() {
        let near =
            [(80.0, "stable"), (200.0, "pre_migration"), (203.0, "migration"), (204.0, "post_migration")];
        let flags = place(&near, 1200.0);
        assert_readable(&flags);
        assert_eq!(flags.iter().map(|flag| flag.row).collect::<Vec<_>>(), [0, 2, 1, 0]);
    }

    #[test]
    fn nothing_covers_anything_wherever_phases_start() {
        let names =
            ["stable", "pre_migration", "migration", "post_migration", "pre_rollback", "rolling_back"];
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..2_000 {
            let mut starts: Vec<f64> = names.iter().map(|_| 80.0 + rng.f64() * 900.0).collect();
            starts.sort_by(f64::total_cmp);
            let named: Vec<(f64, &str)> = starts.into_iter().zip(names).collect();
            assert_readable(&place(&named, 1200.0));
        }
    }

    #[test]
    fn a_name_at_the_right_edge_stays_inside() {
        let flags = place(&[(1_100.0, "migration"), (1_190.0, "post_migration")], 1200.0);
        assert!(flags[1].left + width("post_migration", 14.0) <= 1200.0);
        assert_ne!(flags[0].row, flags[1].row);
    }
}
