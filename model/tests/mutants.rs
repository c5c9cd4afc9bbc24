//! The models can fail: with any one rule left out there is a counterexample, and the shortest one is printed.

use std::fmt::{Debug, Display};
use std::hash::Hash;

use cutover_model::check::shortest;
use cutover_model::definition::{self, Definitions};
use cutover_model::launch::{self, Bounds, Launches, Mutant, property};
use cutover_model::tenant::{self, Tenants};
use stateright::Model;

const SMALL: Bounds = Bounds {
    clients: 2,
    keys: 1,
    epochs: 4,
    crashes: 0,
    failures: 0,
    faults: 0,
    replaces: false,
    collects: false,
    symmetric: false,
};

/// Leaving the rule out breaks the property; with the rule it holds in the same bounds.
fn breaks<M>(with: M, without: M, property: &'static str) -> String
where
    M: Model + Clone + Send + Sync + 'static,
    M::State: Clone + Debug + Display + PartialEq + Hash + Send + Sync + 'static,
    M::Action: Clone + Debug + Display + PartialEq + Send + Sync + 'static,
{
    let way = shortest(&without, property).unwrap_or_else(|| panic!("nothing breaks {property:?}"));
    println!("{property}, broken by:\n{way}");
    assert_eq!(shortest(&with, property), None, "it is broken anyhow");
    way
}

fn launches(mutant: Mutant, bounds: Bounds, property: &'static str) -> String {
    let mut with = Launches::new(bounds);
    with.only = Some(property);
    println!("launches, {mutant:?}: ");
    breaks(with, Launches::new(bounds).mutant(mutant, property), property)
}

#[test]
fn launches_without_the_key_lock() {
    launches(Mutant::NoKeyLock, SMALL, property::ONE_LIVE);
}

#[test]
fn without_the_wait() {
    launches(Mutant::NoWait, SMALL, property::CLOSED);
}

#[test]
fn without_the_wait_a_store_goes_with_what_is_in_it() {
    launches(Mutant::NoWait, Bounds { epochs: 5, clients: 1, ..SMALL }, property::KEPT);
}

#[test]
fn with_the_record_published_before_it_is_durable() {
    launches(Mutant::PublishFirst, Bounds { crashes: 1, ..SMALL }, property::DURABLE);
}

#[test]
fn with_the_record_published_first_a_cancel_takes_instances_with_it() {
    launches(Mutant::PublishFirst, Bounds { crashes: 1, clients: 1, ..SMALL }, property::IN_USE);
}

#[test]
fn with_the_record_published_when_one_slot_has_it() {
    launches(Mutant::PublishAfterOneSlot, Bounds { crashes: 1, ..SMALL }, property::DURABLE);
}

#[test]
fn with_ends_that_are_visible_before_they_are_durable() {
    launches(Mutant::EndVisibleBeforeDurable, Bounds { crashes: 1, ..SMALL }, property::ONE_LIVE);
}

#[test]
fn with_the_ended_holder_at_home_first() {
    launches(Mutant::HomeFirst, Bounds { epochs: 7, clients: 1, ..SMALL }, property::LAST);
}

#[test]
fn without_the_recheck() {
    launches(Mutant::NoRecheck, SMALL, property::ORDER);
}

#[test]
fn with_a_collector_that_takes_no_lock() {
    launches(Mutant::CollectUnlocked, Bounds { collects: true, ..SMALL }, property::ONE_LIVE);
}

#[test]
fn without_the_intent_to_replace() {
    launches(Mutant::NoIntent, Bounds { crashes: 1, replaces: true, ..SMALL }, property::WHOLE);
}

#[test]
fn with_the_status_read_before_the_pin() {
    launches(Mutant::ReadBeforePin, Bounds { epochs: 5, clients: 1, ..SMALL }, property::SERVED);
}

#[test]
fn with_a_store_given_up_before_it_has_drained() {
    launches(Mutant::NotDrained, Bounds { epochs: 5, ..SMALL }, property::IN_USE);
}

#[test]
fn with_a_look_at_home_only() {
    launches(Mutant::LookHomeOnly, SMALL, property::ONE_LIVE);
}

#[test]
fn with_answers_about_a_key_whose_commit_failed() {
    launches(Mutant::NoDoubts, Bounds { faults: 1, crashes: 1, ..SMALL }, property::ONE_LIVE);
}

#[test]
fn a_way_is_told_step_by_step() {
    let way = shortest(
        &Launches::new(SMALL).mutant(launch::Mutant::NoKeyLock, property::ONE_LIVE),
        property::ONE_LIVE,
    );
    let way = way.unwrap();
    assert!(way.contains("Launch(0)") && way.contains("Twice"), "{way}");
    assert_eq!(way.lines().count(), 14, "{way}");
}

const DEFINITIONS: definition::Bounds =
    definition::Bounds { clients: 1, definitions: 1, epochs: 4, crashes: 0, failures: 0, symmetric: false };

fn definitions(mutant: definition::Mutant, bounds: definition::Bounds, property: &'static str) -> String {
    let mut with = Definitions::new(bounds);
    with.only = Some(property);
    println!("definitions, {mutant:?}: ");
    breaks(with, Definitions::new(bounds).mutant(mutant, property), property)
}

#[test]
fn definitions_without_their_lock() {
    let bounds = definition::Bounds { clients: 2, epochs: 1, ..DEFINITIONS };
    definitions(definition::Mutant::NoLock, bounds, definition::property::UNCHANGED);
}

#[test]
fn with_a_define_that_looks_at_home_only() {
    let bounds = definition::Bounds { crashes: 1, ..DEFINITIONS };
    definitions(definition::Mutant::LookHomeOnly, bounds, definition::property::SAME);
}

#[test]
fn with_a_repeat_that_returns_before_both_have_it() {
    let bounds = definition::Bounds { crashes: 1, ..DEFINITIONS };
    definitions(definition::Mutant::RepeatReturnsEarly, bounds, definition::property::BOTH);
}

#[test]
fn with_copies_that_are_new_records() {
    definitions(definition::Mutant::CopyMakesNew, DEFINITIONS, definition::property::SAME);
}

#[test]
fn with_a_store_given_up_without_comparing() {
    let bounds = definition::Bounds { crashes: 1, epochs: 5, ..DEFINITIONS };
    definitions(definition::Mutant::NoCompareAtEnd, bounds, definition::property::KEPT);
}

#[test]
fn with_a_comparison_of_an_earlier_phase_that_counts() {
    let bounds = definition::Bounds { failures: 2, epochs: 5, ..DEFINITIONS };
    definitions(definition::Mutant::EarlierCompareCounts, bounds, definition::property::KEPT);
}

#[test]
fn with_a_switch_to_a_store_that_is_not_synced() {
    definitions(definition::Mutant::NoSync, DEFINITIONS, definition::property::BOTH);
}

#[test]
fn definitions_without_the_wait() {
    let bounds = definition::Bounds { epochs: 3, ..DEFINITIONS };
    definitions(definition::Mutant::NoWait, bounds, definition::property::BOTH);
}

#[test]
fn definitions_with_the_record_published_before_it_is_durable() {
    let bounds = definition::Bounds { crashes: 1, ..DEFINITIONS };
    definitions(definition::Mutant::PublishFirst, bounds, definition::property::DURABLE);
}

#[test]
fn with_a_gap_that_is_not_noted() {
    let bounds = definition::Bounds { failures: 1, ..DEFINITIONS };
    definitions(definition::Mutant::NoGap, bounds, definition::property::BOTH);
}

#[test]
fn with_the_note_of_a_gap_taken_away_before_it_is_mended_durably() {
    let bounds = definition::Bounds { failures: 1, ..DEFINITIONS };
    definitions(definition::Mutant::MendNotSynced, bounds, definition::property::BOTH);
}

#[test]
fn with_a_comparison_that_copies_without_durability() {
    let bounds = definition::Bounds { crashes: 1, ..DEFINITIONS };
    definitions(definition::Mutant::CompareNotSynced, bounds, definition::property::BOTH);
}

const TENANTS: tenant::Bounds = tenant::Bounds { stores: 3, crashes: 0, symmetric: false };

fn tenants(mutant: tenant::Mutant, bounds: tenant::Bounds, property: &'static str) -> String {
    let mut with = Tenants::new(bounds);
    with.only = Some(property);
    println!("tenants, {mutant:?}: ");
    breaks(with, Tenants::new(bounds).mutant(mutant, property), property)
}

#[test]
fn with_a_removal_outside_of_the_catalogs_lock() {
    tenants(tenant::Mutant::RemovedUnlocked, TENANTS, tenant::property::KEPT);
}

#[test]
fn with_a_target_that_the_tenant_is_still_leaving() {
    tenants(tenant::Mutant::OwnRetired, TENANTS, tenant::property::KEPT);
}

#[test]
fn with_the_line_struck_before_the_files_are_removed() {
    tenants(tenant::Mutant::StruckFirst, tenant::Bounds { crashes: 1, ..TENANTS }, tenant::property::ROOM);
}

#[test]
fn with_files_that_the_catalog_does_not_have_yet() {
    tenants(tenant::Mutant::CreatedFirst, tenant::Bounds { crashes: 1, ..TENANTS }, tenant::property::ROOM);
}

#[test]
fn with_a_store_forgotten_before_its_rows_are_removed() {
    tenants(tenant::Mutant::ForgottenFirst, TENANTS, tenant::property::FRESH);
}

#[test]
fn with_a_store_that_is_left_without_being_listed() {
    tenants(tenant::Mutant::NoList, TENANTS, tenant::property::FRESH);
}

#[test]
fn stores_without_the_wait() {
    tenants(tenant::Mutant::NoWait, TENANTS, tenant::property::HELD);
}

#[test]
fn with_other_tenants_not_counted() {
    tenants(tenant::Mutant::OthersNotCounted, TENANTS, tenant::property::KEPT);
}
