//! What power loss may take: of each store the last moments, without holes.

use std::path::Path;
use std::sync::Arc;

use cutover::store::Driver;
use cutover::{Durability, StoreId};
use cutover_oracle::ack::{Ack, Answer};
use cutover_oracle::check::check_rows;
use cutover_oracle::raw::Rows;
use cutover_oracle::who::Who;
use cutover_oracle::{After, Options, Raw, Script};

use crate::common::{Home, work};

#[test]
fn an_answer_that_was_carried_over_is_no_proof_of_the_tail_that_it_came_from() {
    let home = Home::new(Durability::Buffered);
    let engine = home.builder().open().unwrap();
    let mut script = Script::begin(&engine, home.setup(5, 1)).unwrap();
    work(&mut script, &engine, 300);
    let lines = script.lines();
    drop(script);
    home.crash(engine, After::Kill);
    let drivers: [Arc<dyn Driver>; 1] = [home.driver.clone()];
    let tenant = home.setup(5, 1).tenant;
    let whole = || Raw::read(&home.data(), &tenant, &drivers, Path::new("unused")).unwrap();
    let hole = |raw: &Raw| {
        let verdict = check_rows(&lines, raw, &Options::after(After::PowerCut));
        assert!(verdict.lost > 0);
        verdict.broken.iter().any(|what| what.contains("has a hole"))
    };
    let latest = lines.iter().rev().find_map(|line| match &line.ack {
        Ack::Launch { answer: Answer::Started, thread, n, .. } => {
            let who = Who { seed: 5, session: 1, thread: *thread, n: *n }.to_string();
            whole().stores[&StoreId(1)]
                .requests
                .get_key_value(&who)
                .map(|(id, record)| (id.clone(), record.clone()))
        }
        _ => None,
    });
    // Of the store that it was launched in nothing is left.
    let (id, record) = latest.unwrap();
    let answer = || {
        let mut rows = Rows::default();
        rows.requests.insert(id.clone(), record.clone());
        rows
    };
    let mut raw = whole();
    raw.stores.insert(StoreId(1), Rows::default());
    raw.stores.insert(StoreId(2), answer());
    assert!(!hole(&raw));
    raw.stores.insert(StoreId(1), answer());
    assert!(hole(&raw));
}
