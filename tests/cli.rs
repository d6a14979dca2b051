//! Goal: what people type and read. Method: each file in `tests/cmd` is a session with the real binary, one behaviour each.

#[test]
fn sessions_go_as_written() {
    trycmd::TestCases::new().case("tests/cmd/*.trycmd").case("tests/cmd/*.toml");
}
