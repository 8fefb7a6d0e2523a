//! Owns the proof that a running statement only reads, from the statement's text.
//!
//! A SELECT writes if it calls a stored function that writes, by name or through a view, and its rows carry the time at
//! which the SELECT began. The server shows such a SELECT as a transaction only after its first write. So a SELECT counts
//! as a reader only if its text shows that it calls only functions of the server and reads only tables. The server says
//! which names are tables (`INNODB_TABLES` lists no views). Every other SELECT may write: it costs a scan of the index
//! from its start on, and loses nothing.
//!
//! The text of a statement within a stored function or trigger takes the place of the outer text. There, a SELECT
//! has an INTO, so a SELECT with an INTO is no reader either.

use std::collections::BTreeSet;

/// The tables that a statement reads, as `database/table` in InnoDB's spelling. The statement only reads if all of
/// them are tables. None if it may write in any case.
pub(super) fn tables_read(statement: &str, database: Option<&str>) -> Option<BTreeSet<String>> {
    let tokens = tokens(statement)?;
    let mut words = tokens.iter().skip_while(|token| **token == Token::Sign('('));
    let Some(Token::Word(first)) = words.next() else { return None };
    match first.to_ascii_uppercase().as_str() {
        "SELECT" => Clauses::new(database).read(&tokens),
        // Its WHERE may call functions, for which it would need a parenthesis.
        "SHOW" if !tokens.iter().any(|token| matches!(token, Token::Call | Token::Sign('('))) => Some(BTreeSet::new()),
        _ => None,
    }
}

/// A piece of a statement.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    /// A keyword, a name or a number without quotes.
    Word(&'a str),
    /// `(` right after a word or a quoted name.
    Call,
    Sign(char),
    /// A name in backticks.
    Name(&'a str),
    /// A text in quotes. With `ANSI_QUOTES` it may be a name, so it never stands for a table or a function.
    Literal,
}

impl<'a> Token<'a> {
    /// The name that this piece may be.
    fn name(&self) -> Option<&'a str> {
        match *self {
            Self::Word(name) | Self::Name(name) => Some(name),
            Self::Call | Self::Sign(_) | Self::Literal => None,
        }
    }
}

/// The pieces of a statement. None if the text is cut or can be read in two ways. A backslash ends a literal or does
/// not, depending on the session.
fn tokens(statement: &str) -> Option<Vec<Token<'_>>> {
    let mut tokens = Vec::new();
    let mut rest = statement.trim_end_matches(|c: char| c.is_whitespace() || c == ';');
    if rest.contains('\\') {
        return None;
    }
    while let Some(first) = rest.chars().next() {
        let word = rest.len() - rest.trim_start_matches(in_word).len();
        let next = match first {
            // The server executes the text in `/*! */` and `/*M! */`, so its words count as well.
            '/' if rest.starts_with("/*!") || rest.starts_with("/*M!") => {
                rest.split_once('!')?.1.trim_start_matches(|c: char| c.is_ascii_digit())
            }
            '*' if rest.starts_with("*/") => rest.get(2..)?,
            '/' if rest.starts_with("/*") => rest.get(2..)?.split_once("*/")?.1,
            '#' => next_line(rest),
            // Without a space behind them these are two signs.
            '-' if rest.starts_with("--") && rest.chars().nth(2).is_some_and(|c| !c.is_whitespace()) => return None,
            '-' if rest.starts_with("--") => next_line(rest),
            '\'' | '"' | '`' => {
                let (token, after) = quoted_token(rest.get(1..)?, first)?;
                tokens.push(token);
                after
            }
            c if c.is_whitespace() => rest.trim_start(),
            _ if word > 0 => {
                tokens.push(Token::Word(rest.get(..word)?));
                rest.get(word..)?
            }
            sign => {
                tokens.push(Token::Sign(sign));
                rest.get(sign.len_utf8()..)?
            }
        };
        if next.starts_with('(') && matches!(tokens.last(), Some(Token::Word(_))) && word > 0 {
            tokens.push(Token::Call);
            rest = next.get(1..)?;
        } else {
            rest = next;
        }
    }
    Some(tokens)
}

/// The name or literal up to the closing quote, and the text after it. A doubled quote continues the literal. InnoDB
/// does not keep a name with a quote as it is.
fn quoted_token(text: &str, quote: char) -> Option<(Token<'_>, &str)> {
    let (inside, after) = text.split_once(quote)?;
    let is_name = quote == '`' && !after.starts_with(quote);
    Some((if is_name { Token::Name(inside) } else { Token::Literal }, after))
}

/// The text after the first line break.
fn next_line(text: &str) -> &str {
    text.split_once('\n').map_or("", |(_, after)| after)
}

/// Whether a word may contain this character.
fn in_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '$') || !c.is_ascii() && !c.is_whitespace()
}

/// The state of reading between two parentheses, or outside all of them.
#[derive(Clone, Copy, Default)]
struct Clause {
    /// Between FROM and the next clause, where a comma precedes a table.
    from: bool,
    /// The next word is a table.
    table: bool,
    /// Within the arguments of a function. Some functions have a FROM of their own.
    arguments: bool,
}

/// Reads a SELECT clause by clause. If it errs, it takes a name for a table that is none.
struct Clauses<'a> {
    database: Option<&'a str>,
    open: Vec<Clause>,
    now: Clause,
    tables: BTreeSet<String>,
}

impl<'a> Clauses<'a> {
    fn new(database: Option<&'a str>) -> Self {
        Self { database, open: Vec::new(), now: Clause::default(), tables: BTreeSet::new() }
    }

    /// The tables of the statement.
    fn read(mut self, tokens: &[Token<'_>]) -> Option<BTreeSet<String>> {
        let mut rest = tokens;
        while let Some((token, after)) = rest.split_first() {
            let place = tokens.len() - rest.len();
            let back = |steps| place.checked_sub(steps).and_then(|place| tokens.get(place));
            let before = back(1);
            rest = match *token {
                _ if self.now.table => self.table(rest)?,
                Token::Sign('(') | Token::Call => {
                    // A word behind a full stop is a name, whatever it means elsewhere.
                    if back(2) == Some(&Token::Sign('.')) && matches!(before, Some(Token::Word(_))) {
                        return None;
                    }
                    self.open(token, before)?;
                    after
                }
                Token::Sign(')') => {
                    self.now = self.open.pop()?;
                    after
                }
                // Another statement may follow.
                Token::Sign(';') => return None,
                Token::Sign(',') => {
                    self.now.table = self.now.from;
                    after
                }
                // A column may be named like a clause: `t.from`.
                Token::Word(word) if before != Some(&Token::Sign('.')) => {
                    self.word(word)?;
                    after
                }
                Token::Word(_) | Token::Name(_) | Token::Literal | Token::Sign(_) => after,
            };
        }
        (self.open.is_empty() && !self.now.table).then_some(self.tables)
    }

    /// Enters a parenthesis that is no table: a call, an expression, a subquery.
    fn open(&mut self, token: &Token<'_>, before: Option<&Token<'_>>) -> Option<()> {
        let mut inside = Clause::default();
        match before {
            Some(Token::Word(word)) => {
                let word = word.to_ascii_uppercase();
                let call = *token == Token::Call && FUNCTIONS.contains(&word.as_str());
                if !call && !KEYWORDS.contains(&word.as_str()) {
                    return None;
                }
                inside.arguments = call;
            }
            Some(Token::Name(_) | Token::Literal) => return None,
            Some(Token::Sign(_) | Token::Call) | None => {}
        }
        self.open.push(self.now);
        self.now = inside;
        Some(())
    }

    /// Reads a word that is no table.
    fn word(&mut self, word: &str) -> Option<()> {
        match word.to_ascii_uppercase().as_str() {
            // A variable, a file; a table's name alone.
            "INTO" | "TABLE" => return None,
            "FROM" if self.now.arguments => {}
            "FROM" => (self.now.from, self.now.table) = (true, true),
            "JOIN" | "STRAIGHT_JOIN" => self.now.table = true,
            "SELECT" => self.now = Clause::default(),
            "WHERE" | "GROUP" | "HAVING" | "ORDER" | "LIMIT" | "UNION" => self.now.from = false,
            _ => {}
        }
        Some(())
    }

    /// Reads a table, and returns the tokens after it.
    fn table<'t>(&mut self, tokens: &'t [Token<'t>]) -> Option<&'t [Token<'t>]> {
        let (first, rest) = tokens.split_first()?;
        if *first == Token::Sign('(') {
            self.open.push(Clause { table: false, ..self.now });
            return Some(rest);
        }
        if let Token::Word(word) = first {
            match word.to_ascii_uppercase().as_str() {
                // The subquery in a parenthesis that stands for a table.
                "SELECT" => {
                    self.now = Clause::default();
                    return Some(rest);
                }
                "DUAL" => {
                    self.now.table = false;
                    return Some(rest);
                }
                _ => {}
            }
        }
        let (database, table, rest) = match rest {
            [Token::Sign('.'), table, rest @ ..] => (first.name()?, table.name()?, rest),
            rest => (self.database.unwrap_or_default(), first.name()?, rest),
        };
        if matches!(rest.first(), Some(Token::Call)) {
            return None;
        }
        self.now.table = false;
        // The server's own views call no function of a user.
        if ["information_schema", "performance_schema"].iter().any(|own| database.eq_ignore_ascii_case(own)) {
            return Some(rest);
        }
        if !is_plain(database) || !is_plain(table) {
            return None;
        }
        self.tables.insert(format!("{database}/{table}"));
        Some(rest)
    }
}

/// Whether InnoDB spells this name as it is.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Reserved words of every MySQL and MariaDB that may stand before a parenthesis. None can name a function without
/// quotes.
#[rustfmt::skip]
const KEYWORDS: &[&str] = &[
    "ALL", "AND", "AS", "BETWEEN", "BINARY", "BY", "CASE", "CHAR", "DECIMAL", "DISTINCT", "DIV", "ELSE", "EXISTS",
    "FORCE", "FROM", "HAVING", "IGNORE", "IN", "INDEX", "INTERVAL", "IS", "JOIN", "KEY", "LIKE", "MOD", "NOT", "ON",
    "OR", "REGEXP", "RLIKE", "SELECT", "STRAIGHT_JOIN", "THEN", "UNION", "USING", "VARCHAR", "WHEN", "WHERE", "XOR",
];

/// Functions of every MySQL and MariaDB since 5.5. A stored function with such a name does not take its place: a call
/// of it names the database or has a space before the parenthesis.
#[rustfmt::skip]
const FUNCTIONS: &[&str] = &[
    "ABS", "ACOS", "ADDDATE", "ADDTIME", "ASCII", "ASIN", "ATAN", "ATAN2", "AVG", "BENCHMARK", "BIN", "BIT_AND",
    "BIT_COUNT", "BIT_LENGTH", "BIT_OR", "BIT_XOR", "CAST", "CEIL", "CEILING", "CHAR", "CHARACTER_LENGTH",
    "CHARSET", "CHAR_LENGTH", "COALESCE", "COLLATION", "CONCAT", "CONCAT_WS", "CONNECTION_ID", "CONV", "CONVERT",
    "CONVERT_TZ", "COS", "COT", "COUNT", "CRC32", "CURDATE", "CURRENT_DATE", "CURRENT_TIME", "CURRENT_TIMESTAMP",
    "CURRENT_USER", "CURTIME", "DATABASE", "DATE", "DATEDIFF", "DATE_ADD", "DATE_FORMAT", "DATE_SUB", "DAY",
    "DAYNAME", "DAYOFMONTH", "DAYOFWEEK", "DAYOFYEAR", "DEGREES", "ELT", "EXP", "EXTRACT", "FIELD", "FIND_IN_SET",
    "FLOOR", "FORMAT", "FROM_DAYS", "FROM_UNIXTIME", "GET_LOCK", "GREATEST", "GROUP_CONCAT", "HEX", "HOUR", "IF",
    "IFNULL", "INET_ATON", "INET_NTOA", "INSTR", "ISNULL", "IS_FREE_LOCK", "IS_USED_LOCK", "LAST_DAY", "LCASE",
    "LEAST", "LEFT", "LENGTH", "LN", "LOCATE", "LOG", "LOG10", "LOG2", "LOWER", "LPAD", "LTRIM", "MAKEDATE",
    "MAKETIME", "MAX", "MD5", "MICROSECOND", "MID", "MIN", "MINUTE", "MOD", "MONTH", "MONTHNAME", "NOW", "NULLIF",
    "OCT", "OCTET_LENGTH", "ORD", "PERIOD_ADD", "PERIOD_DIFF", "PI", "POSITION", "POW", "POWER", "QUARTER", "QUOTE",
    "RADIANS", "RAND", "RELEASE_LOCK", "REPEAT", "REPLACE", "REVERSE", "RIGHT", "ROUND", "RPAD", "RTRIM", "SCHEMA",
    "SECOND", "SEC_TO_TIME", "SHA1", "SIGN", "SIN", "SLEEP", "SPACE", "SQRT", "STD", "STDDEV", "STDDEV_POP",
    "STDDEV_SAMP", "STRCMP", "STR_TO_DATE", "SUBDATE", "SUBSTR", "SUBSTRING", "SUBSTRING_INDEX", "SUBTIME", "SUM",
    "SYSDATE", "TAN", "TIME", "TIMEDIFF", "TIMESTAMP", "TIMESTAMPADD", "TIMESTAMPDIFF", "TIME_FORMAT",
    "TIME_TO_SEC", "TO_DAYS", "TRIM", "TRUNCATE", "UCASE", "UNHEX", "UNIX_TIMESTAMP", "UPPER", "USER", "UTC_DATE",
    "UTC_TIME", "UTC_TIMESTAMP", "UUID", "VARIANCE", "VAR_POP", "VAR_SAMP", "VERSION", "WEEK", "WEEKDAY",
    "WEEKOFYEAR", "YEAR", "YEARWEEK",
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The tables, with a space between.
    fn read(text: &str) -> Option<String> {
        tables_read(text, Some("shop")).map(|tables| tables.into_iter().collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn a_select_of_tables_and_of_the_servers_functions_reads_only_them() {
        let reads = |text: &str, tables: &str| assert_eq!(read(text).as_deref(), Some(tables), "{text}");
        reads("SELECT 1", "");
        reads("/* a */ /* b */ ((select 1) UNION (SELECT NOW()));", "");
        reads("SHOW PROCESSLIST", "");
        reads("SELECT /*!40001 SQL_NO_CACHE */ * FROM `t`", "shop/t");
        reads("SELECT /*!40001 SQL_NO_CACHE */ `a`, `from` FROM `my_shop` . `t`", "my_shop/t");
        reads("SELECT a.x, COUNT(*), MAX(b.y) FROM t a, u AS b WHERE a.id = b.id GROUP BY a.x, a.z", "shop/t shop/u");
        reads("SELECT 1 FROM (t LEFT JOIN (u, v) ON (t.a = u.a)), w USE INDEX (i)", "shop/t shop/u shop/v shop/w");
        reads("SELECT (SELECT MAX(a) FROM t), b, EXTRACT(YEAR FROM c) FROM u LIMIT 1, 2", "shop/t shop/u");
        reads("SELECT * FROM (SELECT a, b FROM t) AS x WHERE a IN (SELECT c FROM d.u) -- all of it", "d/u shop/t");
        reads("SELECT 'f(1), from v' FROM DUAL", "");
        reads("SELECT trx_id FROM information_schema.INNODB_TRX", "");
    }

    #[test]
    fn a_text_that_may_call_anything_else_is_no_readers() {
        for text in [
            "SELECT f()",
            "SELECT f ()",
            "SELECT `f`(1)",
            "SELECT \"f\"(1)",
            "SELECT shop.f(1)",
            "SELECT shop.count(1)",
            "SELECT shop . mod (1, 2)",
            "SELECT count (1)",
            "SELECT 1 FROM t WHERE a = 1 AND close_month(b)",
            "SELECT COUNT(*), (((f())))",
            "SELECT /*! f() */ 1",
            "SELECT /*M!100100 f() */ 1",
            "SELECT 1 /* a */ + f/* b */(1)",
            "SELECT 'a\\', f(), 'b'",
            "SELECT 'a', f(), 'cut",
            "SELECT 1 /* cut",
            "SELECT (1",
            "SELECT 1 FROM",
            "SELECT 1; DELETE FROM t",
            "SELECT SLEEP(2) INTO x",
            "SELECT NEXTVAL(s)",
            "SELECT 1 FROM JSON_TABLE('[]', '$' COLUMNS (a INT PATH '$')) AS j",
            "SELECT 1 FROM { OJ t LEFT JOIN v ON 1 }",
            "SELECT 1 FROM `a-b`",
            "SELECT 1 FROM `a``b`",
            "SELECT 1 UNION TABLE v",
            "SHOW TABLES WHERE f()",
            "WITH a AS (SELECT 1) UPDATE t SET b = 1",
            "DO f()",
            "",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(tables_read("SELECT 1 FROM t", None), None);
    }

    #[test]
    fn every_name_that_may_be_a_view_is_one_to_look_up() {
        for text in [
            "SELECT * FROM v",
            "SELECT * FROM t, v",
            "SELECT * FROM t JOIN v USING (id)",
            "SELECT * FROM (t, v)",
            "SELECT * FROM t STRAIGHT_JOIN v",
            "SELECT * FROM t a LEFT JOIN u b ON a.x IN (1, 2), v",
            "SELECT 1 FROM t WHERE EXISTS (SELECT * FROM v)",
            "SELECT 1 UNION ALL SELECT * FROM v",
            "SELECT IF((SELECT a FROM v), 1, 2)",
            "SELECT * FROM (SELECT 1 FROM ((v))) x",
            "SELECT * FROM/**/v",
            "SELECT * FROM # a comment\n v",
        ] {
            assert!(read(text).is_some_and(|tables| tables.ends_with("shop/v")), "{text}");
        }
    }
}
