//! The small bounds, walked through in full. The large ones: `cargo run -p cutover-model -- NAME`.

use cutover_model::scenario::{ALL, Scenario};

fn walk(name: &str) {
    let found = ALL.iter().find(|scenario| scenario.name == name);
    let scenario: &Scenario = found.unwrap_or_else(|| panic!("there is no scenario {name}"));
    let report = scenario.run(1);
    let seconds = report.took.as_secs_f64();
    println!(
        "{name}: {} states, {} transitions, depth {}, {seconds:.1} s",
        report.states, report.transitions, report.depth
    );
    scenario.judge(&report).unwrap_or_else(|wrong| panic!("{wrong}"));
}

#[test]
fn launch_alone() {
    walk("launch-alone");
}

#[test]
fn launch_pair() {
    walk("launch-pair");
}

#[test]
fn launch_faults() {
    walk("launch-faults");
}

#[test]
fn launch_crowd() {
    walk("launch-crowd");
}

#[test]
fn definition_alone() {
    walk("definition-alone");
}

#[test]
fn definition_pair() {
    walk("definition-pair");
}

#[test]
fn tenant_pair() {
    walk("tenant-pair");
}

#[test]
fn every_quick_scenario_has_a_test() {
    let quick: Vec<&str> =
        ALL.iter().filter(|scenario| scenario.quick).map(|scenario| scenario.name).collect();
    let here = include_str!("bounds.rs");
    assert!(quick.iter().all(|name| here.contains(&format!("walk(\"{name}\")"))), "{quick:?}");
    assert_eq!(quick.len(), 7);
}

/// A report that is not as it should be is not let through.
#[test]
fn a_wrong_number_and_a_case_that_is_missed_are_told() {
    let scenario = Scenario { states: 3, ..ALL[0] };
    let mut report = scenario.run(1);
    assert!(scenario.judge(&report).unwrap_err().contains("3 were expected"));
    report.states = 3;
    assert_eq!(scenario.judge(&report), Ok(()));
    report.missed.push("a case");
    assert!(scenario.judge(&report).unwrap_err().contains("never reached: a case"));
    report.broken.push("a promise".to_owned());
    assert!(scenario.judge(&report).unwrap_err().contains("broken: a promise"));
}
