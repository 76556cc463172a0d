use super::*;
use crate::paper::report::tests::outcome;

#[test]
fn every_figure_is_drawn_in_both_forms() {
    let folder = std::env::temp_dir().join(format!("plenum-figures-{}", std::process::id()));
    let mut alone = outcome();
    alone.arms.truncate(1);
    alone.series.max_load = 700;
    let mut both = outcome();
    // Nobody's delay is drawn where not everybody is in.
    both.arms[0].rows[4].up = 100;
    let sip = &figures(&both)[0];
    assert_eq!((sip.central.len(), sip.service.len()), (4, 5));
    let files = draw(&folder, &[both, alone]).unwrap();
    assert_eq!(files.len(), 8);
    let svg = fs::read_to_string(folder.join("SIP-delay-500.svg")).unwrap();
    for part in [
        "one server",
        "the service",
        "39.5",
        "75.0",
        "(0.0)",
        "median of the seconds",
        "250",
        "published",
    ] {
        assert!(svg.contains(part), "{part}");
    }
    let png = fs::read(folder.join("media-delay-700.png")).unwrap();
    assert!(png.starts_with(b"\x89PNG") && png.len() > 5_000);
    fs::remove_dir_all(folder).unwrap();
}
