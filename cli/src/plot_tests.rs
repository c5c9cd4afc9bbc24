use super::*;

#[test]
fn axes_have_round_steps() {
    for (least, step) in
        [(0.01, 0.1), (0.3, 0.5), (1.0, 1.0), (1.1, 2.0), (30.0, 50.0), (51.0, 100.0), (101.0, 200.0)]
    {
        assert_eq!(nice_step(least), step, "{least}");
    }
}

#[test]
fn ticks_go_to_the_end_and_not_beyond() {
    assert_eq!(round_ticks(5.4, 14.0).len(), 11, "every half second");
    assert_eq!(round_ticks(600.0, 6.0), [0.0, 100.0, 200.0, 300.0, 400.0, 500.0, 600.0]);
}

#[test]
fn the_axis_of_latencies_ends_at_round_numbers_on_both_sides() {
    for (value, below) in [(0.9, 0.5), (1.0, 1.0), (37.0, 20.0), (0.021, 0.02), (9.9, 5.0)] {
        assert!((10f64.powf(log_below(value)) - below).abs() < 1e-9, "{value}");
    }
    assert!((10f64.powf(-log_below(1.0 / 37.0)) - 50.0).abs() < 1e-9);
}
