//! A phone that other people wrote.

mod common;

use std::process::{Command, Stdio};

use common::{Phone, Server, read_wav, scratch, share_of_pitch, wait};

const TONE_HZ: f64 = 440.0;

/// Where Debian puts its modules.
const MODULES: &str = "/usr/lib/baresip/modules";

#[test]
fn baresip_is_heard_in_the_room_and_leaves_it() {
    let server = Server::start(&[]);
    let home = scratch("baresip");
    std::fs::create_dir_all(&home).unwrap();
    let sound = home.join("tone.wav");
    write_tone(&sound);
    let config = format!(
        "module_path {MODULES}\nmodule account.so\nmodule menu.so\nmodule g711.so\nmodule aufile.so\n\
         sip_listen 127.0.0.1:0\nnet_interface 127.0.0.1\naudio_source aufile,{}\n",
        sound.display()
    );
    std::fs::write(home.join("config"), config).unwrap();
    std::fs::write(home.join("accounts"), "<sip:baresip@127.0.0.1>;regint=0\n").unwrap();
    std::fs::write(home.join("contacts"), "").unwrap();

    let output = std::fs::File::create(home.join("output")).unwrap();
    let mut baresip = Command::new("baresip")
        .args([
            "-4",
            "-f",
            home.to_str().unwrap(),
            "-e",
            &format!("/dial {}", server.uri("lobby")),
            "-t",
            "6",
        ])
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .spawn()
        .expect("baresip is installed (perf/setup.sh baresip)");
    server.wait_until("baresip is in the room", |server| {
        server.participants() == 1
    });

    let record = home.join("heard.wav");
    let listener = Phone::call(
        &server.uri("lobby"),
        &["--record", record.to_str().unwrap(), "--seconds", "2"],
    );
    listener.succeed();
    let samples = read_wav(&record);
    let share = share_of_pitch(&samples[4_000..], TONE_HZ);
    let said = std::fs::read_to_string(home.join("output")).unwrap_or_default();
    assert!(share > 0.9, "baresip is not heard: {share}\n{said}");

    // After its six seconds it hangs up.
    assert!(wait(&mut baresip).success(), "{said}");
    server.wait_until("baresip has left", |server| server.participants() == 0);
    std::fs::remove_dir_all(home).unwrap();
}

fn write_tone(path: &std::path::Path) {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: 8_000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut writer = hound::WavWriter::create(path, spec).unwrap();
    for i in 0..80_000 {
        let phase = std::f64::consts::TAU * TONE_HZ * f64::from(i) / 8_000.0;
        writer.write_sample((phase.sin() * 8_000.0) as i16).unwrap();
    }
    writer.finalize().unwrap();
}
