//! Whether each token may follow the one before it, for 64 bytes at once.
//!
//! The trick throughout is the carry of an addition: put a bit behind each token of a class, add the mask of the bytes
//! to be skipped, and the carries run over them and come out at the next token. What runs off the end of a block goes
//! on in the next one.
//!
//! Two rows of tokens are looked at, and together they are RFC 8259 but for what [`walk`](super::walk) does:
//!
//! - All tokens, skipping white space. Every token ends a value (a string, a scalar, a closing bracket) or wants one (an
//!   opening bracket, a comma, a colon, a newline). A value may only follow what wants one; a comma or colon only what
//!   ends one; a closing bracket or newline what ends one, or directly an opening bracket or newline.
//! - Separators only, skipping strings and scalars too: brackets, commas, colons, newlines. A colon must come after an
//!   opening bracket or a comma. After these a colon must come in an object, and none in an array, but for a bracket that
//!   is closed at once: this depends on where we are, so both are handed on, to be compared with the brackets.
//!
//! That a colon stands right behind a string is left to the caller when white space is between them, since that is rare.

use super::block::{Block, Classify};

/// What the blocks so far leave to the next one.
#[derive(Clone, Debug)]
pub(super) struct Grammar {
    /// All ones inside a string.
    in_string: u64,
    /// 1 when the first byte is escaped.
    escaped: u64,
    /// 1 when the last byte belonged to a scalar.
    in_scalar: u64,
    /// 1 when the last byte was a zero that started a number.
    after_zero: u64,
    /// 1 when the last byte was a closing quote.
    after_string: u64,
    /// 1 when the string that goes on has escapes.
    string_has_escapes: u64,
    /// 1 when the last byte closed a string with escapes.
    after_escapes: u64,
    /// Whether the last two bytes could end a name on a path.
    name_ends: u64,
    wanting: u64,
    opened: u64,
    first: u64,
}

/// What is worth a look in a block, strings and escapes known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marks {
    /// These tokens cannot stand where they stand.
    pub(super) wrong: u64,
    /// These are wrong inside an object: a member has no name.
    pub(super) wrong_in_object: u64,
    /// These are wrong inside an array: an element has a name.
    pub(super) wrong_in_array: u64,
    pub(super) open: u64,
    pub(super) close: u64,
    pub(super) newline: u64,
    /// The newlines of blank lines.
    pub(super) blank: u64,
    /// Where scalars start that are literals, negative numbers or nothing at all: each has to be judged.
    pub(super) words: u64,
    /// Where numbers start with a digit.
    pub(super) numbers: u64,
    /// Bytes of these numbers that are more than a digit, or the last one here: the number has to be judged.
    pub(super) not_digits: u64,
    /// Escaped characters other than quote and backslash: each has to be judged.
    pub(super) escapes: u64,
    /// Colons behind a name that may be on a path.
    pub(super) names: u64,
    /// Colons that are not right behind a closing quote: each has to be judged.
    pub(super) detached: u64,
    /// Colons behind a name with escapes.
    pub(super) escaped_names: u64,
    /// Closing quotes of strings with escapes.
    pub(super) escaped_ends: u64,
}

impl Grammar {
    /// Before the first byte of a line.
    pub(super) fn new() -> Self {
        Self {
            in_string: 0,
            escaped: 0,
            in_scalar: 0,
            after_zero: 0,
            after_string: 0,
            string_has_escapes: 0,
            after_escapes: 0,
            name_ends: 0,
            wanting: 1,
            opened: 1,
            first: 0,
        }
    }

    #[inline(always)]
    pub(super) fn next(&mut self, machine: impl Classify, block: &Block) -> Marks {
        let escaped = escaped_by(block.backslash, &mut self.escaped);
        let quote = block.quote & !escaped;
        let in_string = machine.prefix_xor(quote) ^ self.in_string;
        self.in_string = ((in_string as i64) >> 63) as u64;
        let outside = !(in_string | quote);
        let string_end = quote & !in_string;

        let [comma, colon, newline] = [block.comma, block.colon, block.newline].map(|mask| mask & outside);
        let [open, close, space] = [block.open, block.close, block.space].map(|mask| mask & outside);
        let separator = comma | colon | newline | open | close;
        let scalar = outside & !separator & !space;
        let going_on = std::mem::replace(&mut self.in_scalar, scalar >> 63);
        let scalars = scalar & !(scalar << 1 | going_on);

        let wanting = follow(open | comma | colon | newline, space, &mut self.wanting);
        let opened = follow(open | newline, space, &mut self.opened);
        let first = follow(open | comma, !separator, &mut self.first);

        let values = (quote & in_string) | scalars | open;
        let empty = close & wanting & opened;
        let misplaced = (values & !wanting)
            | ((comma | colon) & wanting)
            | ((close | newline) & wanting & !opened)
            | (colon & !first)
            | (newline & first);

        let number = block.digit & scalars;
        let words = scalars & !number;
        // The carries clear every scalar that does not start with a digit here.
        let in_number = scalar & scalar.wrapping_add(words | going_on);
        let zeros = block.zero & number;
        let leading_zero = block.digit & (zeros << 1 | std::mem::replace(&mut self.after_zero, zeros >> 63));

        let after_string = string_end << 1 | std::mem::replace(&mut self.after_string, string_end >> 63);
        let name_end = block.name_end << 2 | std::mem::replace(&mut self.name_ends, block.name_end >> 62);
        let escaped_ends = self.ends_with_escapes(block.backslash, in_string) & string_end;
        let after_escapes = escaped_ends << 1 | std::mem::replace(&mut self.after_escapes, escaped_ends >> 63);
        Marks {
            wrong: (block.control & in_string) | misplaced | leading_zero,
            wrong_in_object: first & !colon & !empty,
            wrong_in_array: first & colon,
            open,
            close,
            newline,
            blank: newline & wanting,
            words,
            numbers: number,
            not_digits: in_number & !block.digit | in_number & (1 << 63),
            escapes: escaped & in_string & !(block.quote | block.backslash),
            names: colon & name_end & after_string,
            detached: colon & !after_string,
            escaped_names: colon & after_escapes,
            escaped_ends,
        }
    }

    /// Behind the end of each string that has a backslash in it.
    #[inline(always)]
    fn ends_with_escapes(&mut self, backslash: u64, in_string: u64) -> u64 {
        if backslash == 0 && self.string_has_escapes == 0 {
            return 0;
        }
        let (sum, over) = in_string.overflowing_add(backslash & in_string);
        let (sum, over_again) = sum.overflowing_add(self.string_has_escapes);
        self.string_has_escapes = u64::from(over | over_again);
        sum & !in_string
    }
}

/// The bytes that a backslash before them escapes: those behind a row of backslashes of odd length, and every other
/// one inside such a row; `carry` is 1 when the first byte is escaped (Keiser and Lemire, "Parsing gigabytes of JSON per second", 2019, section 3.1.1, in
/// simdjson's later form with one subtraction).
#[inline(always)]
pub(super) fn escaped_by(backslash: u64, carry: &mut u64) -> u64 {
    if backslash == 0 {
        return std::mem::take(carry);
    }
    const ODD: u64 = 0xAAAA_AAAA_AAAA_AAAA;
    let escaping = backslash & !*carry;
    let codes = ((escaping << 1 | ODD).wrapping_sub(escaping)) ^ ODD;
    let escaped = codes ^ (backslash | *carry);
    *carry = (codes & backslash) >> 63;
    escaped
}

/// The first byte that is not in `skipped` behind each bit of `tokens`, none of which is in `skipped`.
#[inline(always)]
fn follow(tokens: u64, skipped: u64, carry: &mut u64) -> u64 {
    let behind = tokens << 1 | *carry;
    let (sum, over) = behind.overflowing_add(skipped);
    *carry = tokens >> 63 | u64::from(over);
    sum & !skipped
}
