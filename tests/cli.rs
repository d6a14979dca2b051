//! Goal: what people type and read. Method: each file in `tests/cmd` is typed to the real binary, one behaviour each.

#[test]
fn commands_go_as_written() {
    trycmd::TestCases::new().case("tests/cmd/*.trycmd").case("tests/cmd/*.toml");
}
