use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::choice::Choice;
use super::draw::draw;
use super::rates::{Heard, Picture};
use super::screen::Screen;
use super::text::text;
use crate::cli::args::{By, OutputFormat, Scope, Sort};
use crate::flows::top::{Activity, Board, Counts, Row, Talk};

fn row(source: &str, destination: &str, port: u16, counts: [u64; 4]) -> Row {
    let [connections, packets, bytes, drops] = counts;
    Row {
        talk: Talk {
            source: source.to_owned(),
            destination: destination.to_owned(),
            protocol: "TCP".to_owned(),
            port,
            ..Talk::default()
        },
        counts: Counts {
            connections,
            packets_sent: packets / 2,
            packets_received: packets - packets / 2,
            bytes_sent: bytes / 4,
            bytes_received: bytes - bytes / 4,
            drops,
        },
    }
}

fn board(rows: impl IntoIterator<Item = Row>) -> Board {
    Board {
        rows: rows.into_iter().collect(),
        ..Board::default()
    }
}

/// What an agent tells of two seconds.
fn activity(node: &str) -> Activity {
    let mut denied = row("shop/deploy/front", "shop/deploy/db", 5432, [0, 0, 0, 6]);
    denied.talk.reason = "policy_denied".to_owned();
    denied.talk.policies = ["shop/db", "shop/default-deny"].map(str::to_owned).into();
    let mut from_there = row(
        "shop/deploy/batch",
        "shop/deploy/back",
        8080,
        [20, 40, 4000, 0],
    );
    from_there.talk.elsewhere = true;
    let mut workloads = board([
        row(
            "shop/deploy/front",
            "shop/deploy/back",
            8080,
            [10, 2000, 5_000_000, 0],
        ),
        row("shop/deploy/front", "shop/deploy/db", 5432, [0, 0, 0, 6]),
        row("world", "shop/deploy/front", 443, [300, 900, 90_000, 0]),
        from_there,
    ]);
    workloads.other.connections = 5;
    workloads.other_elsewhere.connections = 7;
    Activity {
        time: "2026-01-02T03:04:05Z".parse().unwrap(),
        node: node.to_owned(),
        seconds: 2.0,
        flows: 1234,
        refused: 8,
        records_lost: 0,
        pods: board([row("shop/front-5f-x", "10.9.8.7", 53, [1, 2, 300, 0])]),
        workloads,
        services: board([row("", "shop/svc/back", 80, [10, 2000, 5_000_000, 2])]),
        drops: board([denied]),
    }
}

/// A picture of what these agents tell.
fn picture(of_all: bool, activities: impl IntoIterator<Item = Activity>) -> Picture {
    let (mut heard, now) = (Heard::new(of_all), Instant::now());
    for activity in activities {
        heard.hear(activity, now);
    }
    heard.picture(now)
}

/// Sources, destinations and connections a second, as they are shown.
fn shown(picture: &Picture, choice: &Choice) -> Vec<(String, f64)> {
    let rows = choice.of(picture).rows.into_iter();
    rows.map(|row| {
        let talk = &row.talk;
        let ends = [&*talk.source, &*talk.destination].map(|end| {
            let (_, name) = end.rsplit_once('/').unwrap_or_default();
            name
        });
        (ends.join(">"), row.per_second.connections)
    })
    .collect()
}

fn named(rows: &[(&str, f64)]) -> Vec<(String, f64)> {
    let rows = rows.iter();
    rows.map(|(name, rate)| ((*name).to_owned(), *rate))
        .collect()
}

#[test]
fn of_one_node_everything_is_shown_and_of_all_each_flow_once() {
    let choice = Choice::default();
    let one = picture(false, [activity("n1")]);
    let expected = [
        ("front>back", 5.0),
        (">front", 150.0),
        ("batch>back", 10.0),
        ("front>db", 0.0),
    ];
    assert_eq!(shown(&one, &choice), named(&expected));
    assert_eq!(choice.of(&one).other.unwrap().connections, 6.0);
    let two = picture(true, ["n1", "n2"].map(activity));
    let expected = [("front>back", 10.0), (">front", 300.0), ("front>db", 0.0)];
    assert_eq!(shown(&two, &choice), named(&expected));
    assert_eq!(choice.of(&two).other.unwrap().connections, 5.0);
}

#[test]
fn a_rate_is_that_of_all_the_time_since_the_last_picture() {
    let mut slow = activity("n1");
    slow.seconds = 6.0;
    let both = picture(false, [activity("n1"), slow]);
    assert_eq!(shown(&both, &Choice::default())[0].1, 20.0 / 8.0);
    assert_eq!(
        (both.nodes[0].seconds, both.nodes[0].refused_per_second),
        (8.0, 2.0)
    );
}

#[test]
fn rows_are_sorted_and_chosen() {
    let picture = picture(false, [activity("n1")]);
    let first = |sort| {
        let choice = Choice {
            sort,
            ..Choice::default()
        };
        shown(&picture, &choice)[0].0.clone()
    };
    let sorts = [Sort::Bytes, Sort::Packets, Sort::Connections, Sort::Drops];
    assert_eq!(
        sorts.map(first),
        ["front>back", "front>back", ">front", "front>db"]
    );
    for (namespace, text, count) in [
        (Some("shop"), "", 4),
        (Some("sho"), "", 0),
        (None, "5432/T", 1),
        (None, "world", 1),
        (Some("shop"), "batch", 1),
    ] {
        let choice = Choice {
            scope: Scope {
                namespace: namespace.map(str::to_owned),
                all_namespaces: false,
            },
            text: text.to_owned(),
            ..Choice::default()
        };
        let chosen = choice.of(&picture);
        assert_eq!(chosen.rows.len(), count, "{namespace:?} {text}");
        assert!(chosen.other.is_none(), "whose it is nobody knows");
    }
    let denied = Choice {
        by: By::Drops,
        text: "default-deny".to_owned(),
        ..Choice::default()
    };
    assert_eq!(denied.of(&picture).rows.len(), 1);
}

#[test]
fn an_agent_that_tells_nothing_is_named_and_its_rates_go() {
    let (mut heard, start) = (Heard::new(true), Instant::now());
    heard.expect(["n1", "n2", "n3"].map(str::to_owned).into());
    let wanted = Duration::from_secs(2);
    heard.hear(activity("n1"), start);
    assert!(heard.has_news() && !heard.is_full(wanted));
    let silent = |heard: &mut Heard, seconds| {
        let picture = heard.picture(start + Duration::from_secs(seconds));
        let silent = picture.silent().map(|(node, why)| format!("{node} {why}"));
        (
            picture.board(By::Workloads).rows.len(),
            silent.collect::<Vec<_>>(),
        )
    };
    let nothing = ["n2 nothing heard yet", "n3 nothing heard yet"].map(str::to_owned);
    assert_eq!(silent(&mut heard, 0), (3, nothing.to_vec()));
    heard.hear(activity("n1"), start);
    heard.hear(activity("n2"), start);
    heard.ended("n3".to_owned(), "gone".to_owned());
    assert!(heard.is_full(wanted));
    // What takes long is shown until there is something newer, but not for ever.
    assert_eq!(silent(&mut heard, 5), (3, vec!["n3 gone".to_owned()]));
    heard.hear(activity("n2"), start + Duration::from_secs(11));
    let trouble = ["n1 silent for 12 s", "n3 gone"].map(str::to_owned);
    assert_eq!(silent(&mut heard, 12), (3, trouble.to_vec()));
    heard.ended("n2".to_owned(), "gone".to_owned());
    assert_eq!(silent(&mut heard, 12).0, 0);
}

fn press(screen: &mut Screen, keys: &[KeyCode]) -> ControlFlow<()> {
    let mut keys = keys.iter();
    keys.try_for_each(|key| screen.key(KeyEvent::from(*key)))
}

fn typed(text: &str) -> Vec<KeyCode> {
    text.chars().map(KeyCode::Char).collect()
}

#[test]
fn keys_do_what_the_last_line_says() {
    let mut screen = Screen {
        picture: picture(false, [activity("n1")]),
        ..Screen::default()
    };
    let goes_on = ControlFlow::Continue(());
    assert_eq!(press(&mut screen, &[KeyCode::Tab, KeyCode::Tab]), goes_on);
    assert_eq!(screen.choice.by, By::Services);
    assert_eq!(
        press(&mut screen, &[KeyCode::BackTab, KeyCode::Left]),
        goes_on
    );
    assert_eq!(screen.choice.by, By::Workloads);
    assert_eq!(press(&mut screen, &typed("ss")), goes_on);
    assert_eq!(screen.choice.sort, Sort::Connections);
    // As far as there are rows.
    assert_eq!(
        press(&mut screen, &[KeyCode::Down, KeyCode::PageDown]),
        goes_on
    );
    assert_eq!(screen.first, 3);
    assert_eq!(press(&mut screen, &[KeyCode::Up]), goes_on);
    assert_eq!(screen.first, 2);
    // Letters are letters in a filter.
    assert_eq!(press(&mut screen, &typed("/qps")), goes_on);
    assert_eq!(
        press(&mut screen, &[KeyCode::Backspace, KeyCode::Enter]),
        goes_on
    );
    assert_eq!(
        (&*screen.choice.text, screen.first, screen.is_typing),
        ("qp", 0, false)
    );
    assert_eq!(press(&mut screen, &typed("/x")), goes_on);
    assert_eq!(press(&mut screen, &[KeyCode::Esc]), goes_on);
    assert_eq!((&*screen.choice.text, screen.is_typing), ("", false));
    let before = screen.picture.clone();
    assert_eq!(press(&mut screen, &typed("p")), goes_on);
    screen.show(Picture::default());
    assert_eq!(screen.picture, before, "it is paused");
    assert_eq!(press(&mut screen, &typed(" ")), goes_on);
    screen.show(Picture::default());
    assert_eq!(screen.picture, Picture::default());
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    for end in [KeyCode::Char('q').into(), KeyCode::Esc.into(), control_c] {
        assert_eq!(screen.key(end), ControlFlow::Break(()));
    }
    press(&mut screen, &typed("/")).continue_value().unwrap();
    assert_eq!(screen.key(control_c), ControlFlow::Break(()));
}

/// What a terminal of this size shows.
fn drawn(screen: &Screen, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, screen, true)).unwrap();
    let text = terminal.backend().to_string();
    // Without the quotes of the backend.
    let lines = text.lines().map(|line| line.trim_matches('"').trim_end());
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn screens() {
    let mut screen = Screen {
        picture: picture(true, ["n1", "n2"].map(activity)),
        ..Screen::default()
    };
    let mut all = vec![drawn(&Screen::default(), 60, 5)];
    all.push(drawn(&screen, 110, 9));
    all.push(drawn(&screen, 40, 7));
    screen.first = 1;
    all.push(drawn(&screen, 80, 7));
    screen.first = 0;
    screen.choice.by = By::Services;
    all.push(drawn(&screen, 90, 7));
    screen.choice.by = By::Drops;
    screen.choice.text = "front".to_owned();
    screen.is_paused = true;
    all.push(drawn(&screen, 110, 7));
    screen.is_typing = true;
    let (mut heard, now) = (Heard::new(true), Instant::now());
    heard.expect((1..=6).map(|node| format!("n{node}")).collect());
    heard.hear(activity("n1"), now);
    heard.ended("n2".to_owned(), "the agent has ended".to_owned());
    screen.picture = heard.picture(now);
    all.push(drawn(&screen, 60, 12));
    // No room is no error.
    for (width, height) in [(1, 1), (5, 3), (300, 2)] {
        drawn(&screen, width, height);
    }
    insta::assert_snapshot!(all.join("\n────────\n"));
}

#[test]
fn texts() {
    let (mut heard, now) = (Heard::new(true), Instant::now());
    heard.hear(activity("n1"), now);
    heard.ended("n2".to_owned(), "the agent has ended".to_owned());
    let picture = heard.picture(now);
    let mut all = Vec::new();
    for by in By::ALL {
        let choice = Choice {
            by,
            ..Choice::default()
        };
        all.push(text(&picture, &choice, 20, OutputFormat::Table, true).unwrap());
    }
    // Two rows, and all others in one.
    all.push(text(&picture, &Choice::default(), 2, OutputFormat::Table, false).unwrap());
    let drops = Choice {
        by: By::Drops,
        ..Choice::default()
    };
    for output in [OutputFormat::Json, OutputFormat::Yaml] {
        for is_last in [false, true] {
            all.push(text(&picture, &drops, 20, output, is_last).unwrap());
        }
    }
    insta::assert_snapshot!(all.join("────────\n"));
}
