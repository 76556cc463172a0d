//! What `plenum top` looks like, from a status alone.
//!
//! ```text
//! plenum A 0.1.0   active   up 0:00:12             3 conferences   30 participants
//! load ██████████░░ 431 of 500, min 50, 77 more fit         hot █████░░░░░░░  43 %
//!
//! core     load    sip/s      rtp/s  busy                rooms  people   late p99
//! 0         431      2.0      429.0  █████░░░░░░░  43 %      3      30     120 µs
//!
//! core harvest  hear select   mix encode speak  send   sip  mail house  idle  %
//! 0        8.1   2.0    0.3   0.9    0.5   2.2  14.4   0.1   0.0   0.6  70.9
//!
//! server  state           load     of max      heard  uri
//! B       active            12        500      0.3 s  sip:cfw@127.0.0.1:5070
//! C       free               -          -          -  sip:cfw@127.0.0.1:5080
//! q quit   up, down scroll
//! ```

use std::iter::once;

use ratatui::{
    buffer::Buffer,
    layout::{Alignment, Constraint, Layout, Rect},
    style::{Color, Style, Stylize},
    text::{Line, Span},
    widgets::{Cell, Row, Table, Widget},
};

use cfw::SvrId;

use super::Page;
use crate::admin::CoreStatus;
use crate::meters::Phase;

/// Cells of a bar: so many that a core's line fills a terminal of 80 columns.
const BAR_LEN: usize = 12;
/// Blanks between two columns.
const COLUMN_SPACING: u16 = 2;
/// Cores whose ledger is shown at once, below the table of all cores.
const PHASE_ROWS_MAX: usize = 4;
/// The heading of the table of all cores, and one of them.
const CORES_HEIGHT_MIN: usize = 2;
/// From here on a core has little left for bursts, and from the second on it is in danger.
const BUSY_WARN: f64 = 0.6;
const BUSY_HIGH: f64 = 0.85;

/// Decisions shown.
pub(super) const DECISIONS_MAX: usize = 5;

/// One screen.
pub(super) struct View<'a> {
    pub page: &'a Page,
    /// Why the status is old, if it is.
    pub notice: Option<&'a str>,
    /// Cores scrolled past.
    pub scrolled: usize,
}

impl View<'_> {
    /// The whole view in a buffer just high enough.
    pub(super) fn draw_alone(&self, width: u16) -> Buffer {
        // Header, blank, and the tables with their headings; without the line of keys.
        let height = 4
            + self.page.status.cores.len()
            + self.phases_height()
            + self.cluster_height()
            + self.decisions_height();
        let area = Rect::new(0, 0, width, u16::try_from(height).unwrap_or(u16::MAX));
        let mut buffer = Buffer::empty(area);
        self.draw_body(area, &mut buffer);
        buffer
    }

    fn draw_body(&self, area: Rect, buffer: &mut Buffer) {
        let height = |rows: usize| u16::try_from(rows).unwrap_or(u16::MAX);
        // A small terminal shows the cores rather than their ledger.
        let fixed = 3 + CORES_HEIGHT_MIN + self.cluster_height() + self.decisions_height();
        let phases_height = self
            .phases_height()
            .min(usize::from(area.height).saturating_sub(fixed));
        let [title, load, _, cores, phases, cluster, decisions] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(1),
            Constraint::Length(1),
            Constraint::Fill(1),
            Constraint::Max(height(phases_height)),
            Constraint::Max(height(self.cluster_height())),
            Constraint::Max(height(self.decisions_height())),
        ])
        .areas(area);
        self.draw_title(title, buffer);
        self.draw_load(load, buffer);
        self.cores().render(cores, buffer);
        self.phases().render(below_blank(phases), buffer);
        if self.cluster_height() > 0 {
            self.cluster().render(below_blank(cluster), buffer);
        }
        if self.decisions_height() > 0 {
            self.decisions().render(below_blank(decisions), buffer);
        }
    }

    fn draw_title(&self, area: Rect, buffer: &mut Buffer) {
        let status = &self.page.status;
        let state = match status.state.as_str() {
            "active" => status.state.as_str().green(),
            _ => status.state.as_str().yellow(),
        };
        Line::from(vec![
            Span::raw("plenum "),
            status.svr_id.as_str().bold(),
            Span::raw(format!(" {}   ", status.version)),
            state,
            Span::raw(format!("   up {}", uptime(status.uptime_s))),
        ])
        .render(area, buffer);
        Line::from(format!(
            "{} conferences   {} participants",
            status.conferences, status.participants
        ))
        .alignment(Alignment::Right)
        .render(area, buffer);
    }

    fn draw_load(&self, area: Rect, buffer: &mut Buffer) {
        let load = &self.page.status.load;
        let share = f64::from(load.current) / f64::from(load.max.max(1));
        let color = if share >= 1.0 {
            Color::Red
        } else {
            Color::Cyan
        };
        Line::from(vec![
            Span::raw("load "),
            Span::styled(bar(share), color),
            Span::raw(format!(
                " {} of {}, min {}, {} more fit",
                load.current, load.max, load.min, load.fits
            )),
        ])
        .render(area, buffer);
        Line::from(vec![
            Span::raw("hot "),
            Span::styled(bar(load.hot), busy_color(load.hot)),
            Span::raw(format!(" {}", percent(load.hot))),
        ])
        .alignment(Alignment::Right)
        .render(area, buffer);
    }

    fn cores(&self) -> Table<'_> {
        let widths = [4, 7, 7, 9, BAR_LEN as u16 + 6, 5, 6, 9].map(Constraint::Length);
        let headings = [
            "core", "load", "sip/s", "rtp/s", "busy", "rooms", "people", "late p99",
        ];
        let heading = Row::new(headings.map(|heading| match heading {
            "core" | "busy" => Cell::from(heading),
            number => right(number.to_owned()),
        }));
        Table::new(
            self.page
                .status
                .cores
                .iter()
                .skip(self.scrolled)
                .map(core_row),
            widths,
        )
        .header(heading.reversed())
        .column_spacing(COLUMN_SPACING)
    }

    /// Where each core's time went: a blank line, a heading and as many cores as are in the table above,
    /// but no more than leave room for that.
    fn phases_height(&self) -> usize {
        2 + self.page.status.cores.len().min(PHASE_ROWS_MAX)
    }

    fn phases(&self) -> Table<'_> {
        let names = Phase::ALL.map(Phase::name);
        let widths = names.map(|name| Constraint::Length(name.len().max("100.0".len()) as u16));
        let heading = names.map(|name| right(name.to_owned()));
        let rows = self
            .page
            .status
            .cores
            .iter()
            .skip(self.scrolled)
            .map(|core| {
                let shares = Phase::ALL.map(|phase| {
                    let share = core.phases.get(phase.name()).copied().unwrap_or(0.0);
                    right(format!("{:.1}", share * 1e2))
                });
                Row::new(once(Cell::from(core.core.to_string())).chain(shares))
            });
        let heading = once(Cell::from("core"))
            .chain(heading)
            .chain(once(Cell::from("%")));
        Table::new(
            rows,
            once(Constraint::Length(4))
                .chain(widths)
                .chain(once(Constraint::Length(2))),
        )
        .header(Row::new(heading).reversed())
        .column_spacing(1)
    }

    /// Peers and reserved servers: a blank line, a heading and a line each, or nothing.
    fn cluster_height(&self) -> usize {
        let cluster = &self.page.status.cluster;
        match cluster.servers.len() + cluster.reserved.len() {
            0 => 0,
            servers => servers + 2,
        }
    }

    /// The last decisions: a blank line, a heading and a line each, or nothing.
    fn decisions_height(&self) -> usize {
        match self.page.decisions.len() {
            0 => 0,
            decisions => decisions.min(DECISIONS_MAX) + 2,
        }
    }

    fn decisions(&self) -> Table<'_> {
        let widths = [
            Constraint::Length(8),
            Constraint::Length(8),
            Constraint::Length(12),
            Constraint::Length(8),
            Constraint::Fill(2),
            Constraint::Fill(3),
        ];
        let heading = ["at", "decision", "room", "server", "who", "why"];
        let first = self.page.decisions.len().saturating_sub(DECISIONS_MAX);
        let rows = self.page.decisions[first..].iter().map(|decision| {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            Row::new([
                Cell::from(time_of_day(decision.at_ms)),
                Cell::from(decision.what.as_str()),
                Cell::from(text(&decision.room)),
                Cell::from(text(&decision.server)),
                Cell::from(text(&decision.who)),
                Cell::from(decision.reason.as_str()),
            ])
        });
        Table::new(rows, widths)
            .header(Row::new(heading).reversed())
            .column_spacing(1)
    }

    fn cluster(&self) -> Table<'_> {
        let ids = self
            .page
            .status
            .cluster
            .servers
            .iter()
            .map(|peer| &peer.svr_id);
        let ids = ids.chain(
            self.page
                .status
                .cluster
                .reserved
                .iter()
                .map(|server| &server.svr_id),
        );
        let id_len = ids
            .map(String::len)
            .max()
            .unwrap_or(0)
            .clamp("server".len(), SvrId::LEN_MAX);
        let widths = [
            Constraint::Length(id_len as u16),
            Constraint::Length(9),
            Constraint::Length(9),
            Constraint::Length(9),
            Constraint::Length(9),
            Constraint::Fill(2),
        ];
        let cluster = &self.page.status.cluster;
        let peers = cluster.servers.iter().map(|peer| {
            Row::new([
                Cell::from(peer.svr_id.as_str()),
                Cell::from(peer.state.as_str()),
                right(peer.load.to_string()),
                right(peer.max.to_string()),
                right(peer.age_ms.map_or_else(
                    || "-".to_owned(),
                    |age_ms| format!("{:.1} s", age_ms as f64 / 1_000.0),
                )),
                Cell::from(peer.uri.as_str()),
            ])
        });
        let reserved = cluster.reserved.iter().map(|server| {
            let [load, max, age] = ["-"; 3].map(|none| right(none.to_owned()));
            let [id, state, uri] =
                [&server.svr_id, &server.state, &server.uri].map(|text| Cell::from(text.as_str()));
            Row::new([id, state, load, max, age, uri]).dim()
        });
        let heading = Row::new([
            Cell::from("server"),
            Cell::from("state"),
            right("load".to_owned()),
            right("of max".to_owned()),
            right("heard".to_owned()),
            Cell::from("uri"),
        ]);
        Table::new(peers.chain(reserved), widths)
            .header(heading.reversed())
            .column_spacing(COLUMN_SPACING)
    }
}

impl Widget for View<'_> {
    fn render(self, area: Rect, buffer: &mut Buffer) {
        let [body, foot] =
            Layout::vertical([Constraint::Fill(1), Constraint::Length(1)]).areas(area);
        self.draw_body(body, buffer);
        match self.notice {
            Some(notice) => Line::from(notice).red().render(foot, buffer),
            None => Line::from("q quit   up, down scroll")
                .dim()
                .render(foot, buffer),
        }
    }
}

fn core_row(core: &CoreStatus) -> Row<'_> {
    let busy = Line::from(vec![
        Span::styled(bar(core.busy), busy_color(core.busy)),
        Span::raw(format!(" {}", percent(core.busy))),
    ]);
    Row::new([
        Cell::from(core.core.to_string()),
        right(core.load.to_string()),
        right(format!("{:.1}", core.sip_msgs_per_s)),
        right(format!("{:.1}", core.rtp_packets_per_s)),
        Cell::from(busy),
        right(core.conferences.to_string()),
        right(core.participants.to_string()),
        right(format!("{} µs", core.tick_late_us_p99)),
    ])
}

/// All of `area` but its first line.
fn below_blank(area: Rect) -> Rect {
    let [_, rest] = Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(area);
    rest
}

fn right(text: String) -> Cell<'static> {
    Cell::from(Line::from(text).alignment(Alignment::Right))
}

/// Full and empty cells, full when `share` is 1 or more.
fn bar(share: f64) -> String {
    let full = (share.clamp(0.0, 1.0) * BAR_LEN as f64).round() as usize;
    "█".repeat(full) + &"░".repeat(BAR_LEN - full)
}

fn busy_color(busy: f64) -> Style {
    Style::new().fg(match busy {
        busy if busy >= BUSY_HIGH => Color::Red,
        busy if busy >= BUSY_WARN => Color::Yellow,
        _ => Color::Green,
    })
}

fn percent(share: f64) -> String {
    format!("{:3.0} %", share * 100.0)
}

/// `13:02:03`, UTC.
fn time_of_day(at_ms: u64) -> String {
    let seconds = at_ms / 1_000;
    format!(
        "{:02}:{:02}:{:02}",
        seconds / 3_600 % 24,
        seconds / 60 % 60,
        seconds % 60
    )
}

/// `1:02:03`, with days before it when there are any.
fn uptime(seconds: u64) -> String {
    let clock = format!(
        "{}:{:02}:{:02}",
        seconds / 3_600 % 24,
        seconds / 60 % 60,
        seconds % 60
    );
    match seconds / 86_400 {
        0 => clock,
        days => format!("{days} d {clock}"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;

    /// The page as documented.
    pub(in super::super) const STATUS: &str = r#"{"svr_id":"A","version":"0.1.0","state":"active","uptime_s":12,
        "load":{"current":431,"max":500,"min":50,"hot":0.43,"fits":77},
        "conferences":3,"participants":30,
        "cores":[{"core":0,"load":431,"sip_msgs_per_s":2.0,"rtp_packets_per_s":429.0,"busy":0.43,"conferences":3,"participants":30,"tick_late_us_p99":120,
                  "phases":{"harvest":0.081,"hear":0.02,"select":0.003,"mix":0.009,"encode":0.005,"speak":0.022,"send":0.144,"sip":0.001,"mail":0.0,"house":0.006,"idle":0.709}}],
        "cluster":{"servers":[{"svr_id":"B","uri":"sip:cfw@127.0.0.1:5070","state":"active","load":12,"max":500,"min":50,"age_ms":310}],
                   "reserved":[{"svr_id":"C","uri":"sip:cfw@127.0.0.1:5080","state":"free"}]}}"#;

    pub(in super::super) const DECISIONS: &str = r#"[{"at_ms":1700000000250,"what":"redirect","room":"blue","who":"sip:alice@example.org",
        "server":"B","status":302,"reason":"at the maximum","seen":[]}]"#;

    pub(in super::super) fn page() -> Page {
        Page {
            status: simd_json::from_slice(&mut STATUS.as_bytes().to_vec()).unwrap(),
            decisions: simd_json::from_slice(&mut DECISIONS.as_bytes().to_vec()).unwrap(),
        }
    }

    fn drawn(view: View<'_>, width: u16, height: u16) -> Terminal<TestBackend> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal
            .draw(|frame| frame.render_widget(view, frame.area()))
            .unwrap();
        terminal
    }

    #[test]
    fn one_screen() {
        let page = page();
        let terminal = drawn(
            View {
                page: &page,
                notice: None,
                scrolled: 0,
            },
            80,
            16,
        );
        let lines: Vec<String> = terminal
            .backend()
            .buffer()
            .content
            .chunks(80)
            .map(|row| {
                row.iter()
                    .map(|cell| cell.symbol())
                    .collect::<String>()
                    .trim_end()
                    .to_owned()
            })
            .collect();
        assert_eq!(
            lines,
            [
                "plenum A 0.1.0   active   up 0:00:12             3 conferences   30 participants",
                "load ██████████░░ 431 of 500, min 50, 77 more fit         hot █████░░░░░░░  43 %",
                "",
                "core     load    sip/s      rtp/s  busy                rooms  people   late p99",
                "0         431      2.0      429.0  █████░░░░░░░  43 %      3      30     120 µs",
                "",
                "core harvest  hear select   mix encode speak  send   sip  mail house  idle %",
                "0        8.1   2.0    0.3   0.9    0.5   2.2  14.4   0.1   0.0   0.6  70.9",
                "",
                "server  state           load     of max      heard  uri",
                "B       active            12        500      0.3 s  sip:cfw@127.0.0.1:5070",
                "C       free               -          -          -  sip:cfw@127.0.0.1:5080",
                "",
                "at       decision room         server   who              why",
                "22:13:20 redirect blue         B        sip:alice@exampl at the maximum",
                "q quit   up, down scroll",
            ]
        );
    }

    #[test]
    fn a_server_that_went_away_is_said_so() {
        let page = page();
        let notice = "no status from http://127.0.0.1:8080: connection refused";
        let terminal = drawn(
            View {
                page: &page,
                notice: Some(notice),
                scrolled: 0,
            },
            80,
            24,
        );
        let buffer = terminal.backend().buffer();
        let foot: String = (0..80).map(|x| buffer[(x, 23)].symbol()).collect();
        assert_eq!(foot.trim_end(), notice);
        assert_eq!(buffer[(0, 23)].fg, Color::Red);
    }

    #[test]
    fn many_cores_scroll_and_small_terminals_do_not_panic() {
        let mut page = page();
        page.status.cores = (0..200)
            .map(|core| CoreStatus {
                core,
                ..page.status.cores[0].clone()
            })
            .collect();
        let terminal = drawn(
            View {
                page: &page,
                notice: None,
                scrolled: 150,
            },
            80,
            15,
        );
        let buffer = terminal.backend().buffer();
        let first_core: String = (0..4).map(|x| buffer[(x, 4)].symbol()).collect();
        assert_eq!(first_core.trim(), "150");
        for (width, height) in [(1, 1), (10, 3), (30, 5), (200, 2)] {
            drawn(
                View {
                    page: &page,
                    notice: None,
                    scrolled: 0,
                },
                width,
                height,
            );
        }
    }

    #[test]
    fn bars_and_times() {
        assert_eq!(bar(0.0), "░".repeat(BAR_LEN));
        assert_eq!(bar(7.0), "█".repeat(BAR_LEN));
        assert_eq!(bar(0.5).matches('█').count(), BAR_LEN / 2);
        assert_eq!(bar(f64::NAN).chars().count(), BAR_LEN);
        assert_eq!(uptime(59), "0:00:59");
        assert_eq!(uptime(3_723 + 2 * 86_400), "2 d 1:02:03");
    }
}
