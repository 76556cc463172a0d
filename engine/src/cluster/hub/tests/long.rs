//! Snapshots and changes that are too long for one message.

use super::*;

const ROOMS: usize = 50;

/// The n-th who comes, to one of some rooms.
fn tell(net: &mut Net, number: usize, entity: String, display_name: Option<String>) {
    let Report::User { mut user, .. } = user(0) else {
        unreachable!("made as such");
    };
    let room = RoomName::from_user(&format!("room{}", number % ROOMS)).unwrap();
    user.endpoint = format!("0.{number}");
    user.entity = entity;
    user.display_name = display_name;
    let report = Report::User { room, user };
    net.hubs[0].handle(net.now, Input::Report { shard: 0, report });
}

fn seen_there(net: &Net) -> usize {
    let there = net.hubs[1].cluster();
    let rooms = there
        .conferences()
        .filter_map(|room| there.conference(room));
    rooms.map(|room| room.users.len()).sum()
}

#[test]
fn a_snapshot_of_many_users_arrives_in_parts() {
    const USERS: usize = 30_000;
    let mut net = Net::of(&[&[1], &[]]);
    for number in 0..USERS {
        tell(&mut net, number, format!("sip:{number}@example.org"), None);
    }
    net.run(3.0);
    assert_eq!(seen_there(&net), USERS);
    // Again by a snapshot, once they have been told one by one as well.
    net.cut();
    net.run(6.0);
    assert_eq!((net.up(), seen_there(&net)), (vec![1, 1], USERS));
    // Nobody asked for it over and over.
    let messages = net.hubs[0].counters().messages_out;
    assert!(messages < 200, "{messages}");
}

#[test]
fn names_of_any_length_are_told_in_messages_that_arrive() {
    let mut net = Net::of(&[&[1], &[]]);
    let long = |number| format!("sip:{number}{}@example.org", "ä&".repeat(20_000));
    for number in 0..40 {
        tell(&mut net, number, long(number), Some(long(number)));
    }
    net.run(3.0);
    assert_eq!(seen_there(&net), 40);
    // The same as changes.
    for number in 40..80 {
        tell(&mut net, number, long(number), Some(long(number)));
    }
    net.run(3.0);
    assert_eq!(seen_there(&net), 80);
    let messages = net.hubs[0].counters().messages_out;
    assert!(messages < 40, "{messages}");
}
