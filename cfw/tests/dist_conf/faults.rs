//! What is no message: bad XML, and XML with bad content.

use cfw::dist_conf::load::LoadError;
use cfw::dist_conf::read::{Fault, Malformed};
use cfw::dist_conf::{DEPTH_MAX, ELEMENTS_MAX, ReadError, XML_LEN_MAX, read};

use crate::values::id;

#[test]
fn bad_content_is_answered_inside_a_200() {
    let missing = |element: &str, attribute| Fault::Missing {
        element: element.to_owned(),
        attribute,
    };
    let value = |element: &str, attribute| Fault::Value {
        element: element.to_owned(),
        attribute,
    };
    let asks = |content: &str| format!("<request seq='5'>{content}</request>");
    for (document, seq, fault) in [
        ("<html/>".to_owned(), 0, Fault::NotDistConf),
        ("<request xmlns='urn:o'/>".to_owned(), 0, Fault::NotDistConf),
        ("<msc-dist-conf/>".to_owned(), 0, Fault::NotOne),
        (
            "<msc-dist-conf><request/><response/></msc-dist-conf>".to_owned(),
            0,
            Fault::NotOne,
        ),
        (
            "<msc-dist-conf version='2.0'><request seq='6'/></msc-dist-conf>".to_owned(),
            6,
            Fault::Version,
        ),
        ("<request seq='-1'/>".to_owned(), 0, value("request", "seq")),
        (
            asks("<crt-svr-load svr-id='A' max-load='1' min-load='1'>0</crt-svr-load>"),
            5,
            Fault::Load(LoadError::MinNotBelowMax),
        ),
        (
            asks("<crt-conf-info full='yes'/>"),
            5,
            value("crt-conf-info", "full"),
        ),
        (
            asks("<crt-conf-info part='2'/>"),
            5,
            value("crt-conf-info", "part"),
        ),
        (
            asks("<crt-conf-info part='1' parts='513'/>"),
            5,
            value("crt-conf-info", "parts"),
        ),
        (
            asks("<crt-conf-info><crt-system/></crt-conf-info>"),
            5,
            missing("crt-system", "svr-id"),
        ),
        (
            asks("<crt-conf-info><crt-users/></crt-conf-info>"),
            5,
            missing("crt-users", "conf-obj-id"),
        ),
        (
            asks(
                "<crt-conf-info><crt-users conf-obj-id='c'><conf-user/></crt-users></crt-conf-info>",
            ),
            5,
            missing("conf-user", "entity"),
        ),
        (
            asks(
                "<crt-conf-info><crt-users conf-obj-id='c'>\
                 <conf-user entity='a' joined='now'/></crt-users></crt-conf-info>",
            ),
            5,
            value("conf-user", "joined"),
        ),
        (
            asks(
                "<crt-conf-info><crt-users conf-obj-id='c'>\
                 <conf-user entity='a' status='asleep'/></crt-users></crt-conf-info>",
            ),
            5,
            value("conf-user", "status"),
        ),
        (
            asks(
                "<crt-conf-info><crt-users conf-obj-id='c'>\
                 <conf-user entity='a'><reach contact='b'/></conf-user></crt-users></crt-conf-info>",
            ),
            5,
            missing("reach", "call-id"),
        ),
        (
            asks("<reserved-svrs><reserved-svr svr-id='A' by='b c'/></reserved-svrs>"),
            5,
            value("reserved-svr", "by"),
        ),
        (
            asks("<conf_op_sys><conf_sys_del/></conf_op_sys>"),
            5,
            missing("conf_sys_del", "conf-obj-id"),
        ),
        (
            asks("<conf_op_prtcs conf-obj-id='c'><conf_prtcs_mod/></conf_op_prtcs>"),
            5,
            missing("conf_prtcs_mod", "entity"),
        ),
        (
            "<response seq='9'/>".to_owned(),
            9,
            missing("response", "status"),
        ),
        (
            "<response status='99'/>".to_owned(),
            0,
            value("response", "status"),
        ),
    ] {
        let error = read(document.as_bytes()).unwrap_err();
        assert_eq!(
            error,
            ReadError::Content {
                seq,
                fault: fault.clone()
            }
        );
        let response = error.response(id("srv-b")).unwrap();
        assert_eq!((response.seq, response.status), (seq, 400), "{document}");
        assert_eq!(response.reason, Some(fault.to_string()));
    }
}

#[test]
fn what_is_no_xml_is_refused_by_the_channel() {
    let nested = |depth: usize| format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth));
    let many = |count: usize| format!("<a>{}</a>", "<b/>".repeat(count - 1));
    let lengthy = format!("<a>{}</a>", " ".repeat(XML_LEN_MAX));
    for (document, malformed) in [
        ("", Malformed::NotXml),
        ("load", Malformed::NotXml),
        ("<request>", Malformed::NotXml),
        ("<request></response>", Malformed::NotXml),
        ("<request a='1' a='2'/>", Malformed::NotXml),
        ("<request a='<'/>", Malformed::NotXml),
        ("<request a='&other;'/>", Malformed::NotXml),
        ("<request a='&#0;'/>", Malformed::NotXml),
        ("<request>&other;</request>", Malformed::NotXml),
        ("<request>\u{1}</request>", Malformed::NotXml),
        ("<request/><request/>", Malformed::NotXml),
        ("<request/>text", Malformed::NotXml),
        // Bad content does not hide that the rest is no XML.
        ("<html><request>", Malformed::NotXml),
        (
            "<!DOCTYPE r [<!ENTITY e 'ee'>]><request>&e;</request>",
            Malformed::DocumentType,
        ),
        (&nested(DEPTH_MAX + 1), Malformed::TooDeep),
        (&many(ELEMENTS_MAX + 1), Malformed::TooMany),
        (&lengthy, Malformed::TooLong),
    ] {
        let error = read(document.as_bytes()).unwrap_err();
        assert_eq!(error, ReadError::Malformed(malformed));
        assert_eq!(error.response(id("srv-b")), None);
    }
    assert_eq!(
        read(b"<a>\xff</a>"),
        Err(ReadError::Malformed(Malformed::NotUtf8))
    );
    for document in [nested(DEPTH_MAX), many(ELEMENTS_MAX)] {
        let error = read(document.as_bytes()).unwrap_err();
        assert!(matches!(error, ReadError::Content { .. }));
    }
}
