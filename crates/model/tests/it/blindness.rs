//! With a promise of the protocol taken out the model finds a story, a short one: the proof can see.

use posthorn_model::broken::Broken;
use posthorn_model::{Bounds, Failure, Left, Sabotage, Scene, Walks, deepening, random};

fn found(sabotage: Sabotage, detours: u8) -> Option<Failure<1>> {
    let bounds = Bounds { scene: Scene::Accepted, left: Left { faults: 3, people: 1 }, detours, states: usize::MAX };
    deepening::<1>(&bounds, sabotage, |_, _| {}).err().map(|failure| *failure)
}

#[track_caller]
fn is_found(sabotage: Sabotage, promises: &[Broken]) -> String {
    let failure = found(sabotage, 5).unwrap_or_else(|| panic!("without {}: nothing was found", sabotage.name()));
    let story = failure.to_string();
    println!("{}:\n{story}\n", sabotage.name());
    assert!(promises.contains(&failure.broken), "another promise is broken");
    assert!(story.lines().count() <= 18, "the story is long");
    story
}

const REPEATED: [Broken; 2] = [Broken::SentAfterAccepted, Broken::SentTwiceAtOnce];

#[test]
fn without_the_fence_two_messages_of_one_attempt_are_both_obeyed() {
    is_found(Sabotage::NoFence, &REPEATED);
}

#[test]
fn without_the_outbox_a_gateway_that_dies_loses_the_event() {
    let story = is_found(Sabotage::NoOutbox, &[Broken::Lost]);
    assert!(story.contains("The gateway dies before it publishes."), "{story}");
}

#[test]
fn with_an_outbox_that_ends_on_the_confirm_a_broker_that_forgets_loses_the_event() {
    is_found(Sabotage::OutboxUntilConfirm, &[Broken::Lost]);
}

#[test]
fn a_first_attempt_that_is_never_claimed_is_made_twice_when_a_connection_is_lost() {
    is_found(Sabotage::NoLateClaim, &REPEATED);
}

#[test]
fn a_late_claim_that_is_tried_once_fails_with_the_database_and_the_attempt_is_made_twice() {
    is_found(Sabotage::ClaimOnce, &REPEATED);
}

#[test]
fn a_message_that_came_back_and_claims_at_once_repeats_what_goes_on_elsewhere() {
    is_found(Sabotage::NoPatience, &REPEATED);
}

#[test]
fn two_seconds_are_too_short_where_whoever_has_the_attempt_waits_for_its_turn() {
    is_found(Sabotage::ShortPatience, &REPEATED);
}

#[test]
fn a_wait_that_does_not_start_anew_with_the_database_is_too_short() {
    is_found(Sabotage::PatienceWithoutDatabase, &REPEATED);
}

#[test]
fn a_scheduler_that_is_faster_than_recorders_repeats_what_was_accepted() {
    is_found(Sabotage::RecordersLast, &REPEATED);
}

#[test]
fn without_renewal_a_message_that_is_lost_is_a_delivery_that_is_lost() {
    is_found(Sabotage::NoRenewal, &[Broken::Lost]);
}

#[test]
fn a_recorder_that_forgets_repeats_what_was_accepted() {
    is_found(Sabotage::ForgetfulRecorder, &REPEATED);
}

#[test]
fn without_the_janitor_a_death_may_go_untold() {
    is_found(Sabotage::NoJanitor, &[Broken::Lost]);
}

/// What these two add is that less is done twice, and sooner; no promise rests on them.
#[test]
fn neither_the_order_of_acknowledging_nor_the_line_in_a_worker_is_what_promises_rest_on() {
    for sabotage in [Sabotage::AckBeforeRecord, Sabotage::NobodyWaitsInHand] {
        let failure = found(sabotage, 4);
        assert!(failure.is_none(), "{}:\n{}", sabotage.name(), failure.unwrap());
    }
}

#[test]
fn a_walk_finds_it_as_well_and_its_story_is_shrunk() {
    let walks = Walks { seed: 1, walks: 20_000, length: 120, left: Left { faults: 8, people: 3 } };
    let failure = random::<3>(&walks, Sabotage::NoFence).unwrap_err();
    println!("{failure}");
    assert!(REPEATED.contains(&failure.broken));
    assert!(failure.to_string().lines().count() <= 25, "the story is long");
}
