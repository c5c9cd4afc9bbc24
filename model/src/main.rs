//! `cargo run -p cutover-model -- NAME`: walks through every state of a scenario, and fails if a property does not hold, something
//! is never reached, or the number of states is not the one that is written down.

use std::process::ExitCode;

use cutover_model::scenario::{ALL, Scenario};

fn main() -> ExitCode {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let wanted: Vec<&Scenario> = ALL
        .iter()
        .filter(|scenario| names.iter().any(|name| name == scenario.name || name == "all"))
        .collect();
    if wanted.is_empty() {
        eprintln!("usage: cutover-model NAME..., or all. The names:");
        for scenario in &ALL {
            eprintln!(
                "  {:<20} {:>12} states{}",
                scenario.name,
                scenario.states,
                if scenario.quick { ", a test" } else { "" }
            );
        }
        return ExitCode::from(2);
    }
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut code = ExitCode::SUCCESS;
    for scenario in wanted {
        println!("{}: {:?}", scenario.name, scenario.of);
        let report = scenario.run(threads);
        let seconds = report.took.as_secs_f64();
        println!(
            "{}: {} states, {} transitions, depth {}, {seconds:.1} s on {threads} threads",
            scenario.name, report.states, report.transitions, report.depth
        );
        if let Err(wrong) = scenario.judge(&report) {
            println!("{wrong}");
            code = ExitCode::FAILURE;
        }
    }
    code
}
