//! `matches_any(text, 'word', …)` and `matched_keywords(text, 'word', …)`: which of some constant keywords are in a text.

mod folding;
mod search;

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, BooleanArray, ListBuilder, StringArray, StringBuilder},
    datatypes::{DataType, Field},
};
use datafusion::{
    common::{Result, ScalarValue, plan_err},
    logical_expr::{
        ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
        simplify::{ExprSimplifyResult, SimplifyContext},
    },
};

pub(crate) use self::folding::is_of_word;
use self::search::Keywords;
use crate::{bound::MAX_BYTES, fault::DataFault};

/// What a function says about a text and keywords.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Matching {
    /// `matches_any`: is one of them in it?
    Any,
    /// `matched_keywords`: the list of those that are in it.
    All,
}

impl Matching {
    /// Both functions.
    pub const BOTH: [Self; 2] = [Self::Any, Self::All];

    /// The function for the planner.
    pub fn udf(self) -> ScalarUDF {
        self.prepared(None)
    }

    fn prepared(self, keywords: Option<Keywords>) -> ScalarUDF {
        let signature = Signature::user_defined(Volatility::Immutable);
        ScalarUDF::new_from_impl(KeywordFunction { matching: self, keywords, signature })
    }

    /// The function's name in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Any => "matches_any",
            Self::All => "matched_keywords",
        }
    }

    fn usage(self) -> String {
        format!("write {}(text, 'word', 'two words', '#tag'), with constant keywords", self.name())
    }
}

/// Checks the keywords of a call of one of the functions; any other call is right. `fold` computes constants.
///
/// # Errors
/// What is wrong, and what to write.
pub fn check(name: &str, args: &[Expr], fold: &dyn Fn(&Expr) -> crate::Result<Expr>) -> crate::Result<()> {
    let Some(matching) = Matching::BOTH.into_iter().find(|matching| matching.name() == name) else { return Ok(()) };
    let folded = args.iter().skip(1).map(fold).collect::<crate::Result<Vec<_>>>()?;
    let Some(words) = folded.iter().map(constant).collect::<Option<Vec<_>>>() else {
        return Err(crate::SqlError::new(format!(
            "the keywords of {name}() are not all constant texts: {}",
            matching.usage()
        )));
    };
    match words.iter().all(|word| Keywords::is_keyword(word)) {
        true => Ok(()),
        false => Err(crate::SqlError::new(format!("a keyword of {name}() is empty: {}", matching.usage()))),
    }
}

fn constant(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Literal(value, _) => text_of(value),
        _ => None,
    }
}

fn text_of(value: &ScalarValue) -> Option<&str> {
    value.try_as_str().flatten()
}

/// As the statement has it, with the keywords among the arguments; or, once the plan is optimized, with prepared keywords
/// and the text alone.
#[derive(Debug, PartialEq, Eq, Hash)]
struct KeywordFunction {
    matching: Matching,
    keywords: Option<Keywords>,
    signature: Signature,
}

impl ScalarUDFImpl for KeywordFunction {
    fn name(&self) -> &str {
        self.matching.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let is_text = |t: &DataType| t.is_string() || *t == DataType::Null;
        let are_enough = self.keywords.is_some() || types.len() > 1;
        if types.is_empty() || !are_enough || !types.iter().all(is_text) {
            return plan_err!("{}", self.matching.usage());
        }
        Ok(vec![DataType::Utf8; types.len()])
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(match self.matching {
            Matching::Any => DataType::Boolean,
            Matching::All => DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true))),
        })
    }

    fn simplify(&self, args: Vec<Expr>, _context: &SimplifyContext) -> Result<ExprSimplifyResult> {
        if self.keywords.is_some() || args.is_empty() {
            return Ok(ExprSimplifyResult::Original(args));
        }
        let Some(words) = args[1..].iter().map(constant).collect::<Option<Vec<_>>>() else {
            return Ok(ExprSimplifyResult::Original(args));
        };
        let prepared = self.matching.prepared(Some(Keywords::of(&words)));
        Ok(ExprSimplifyResult::Simplified(prepared.call(args.into_iter().take(1).collect())))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let texts = args.args[0].to_array(args.number_rows)?;
        let texts = texts.as_string::<i32>();
        let answer: ArrayRef = match (&self.keywords, self.matching) {
            (Some(keywords), Matching::Any) => Arc::new(any(texts, keywords)),
            (Some(keywords), Matching::All) => all(texts, keywords)?,
            // Every plan is optimized, and its keywords have been checked.
            (None, _) => return plan_err!("{}", self.matching.usage()),
        };
        Ok(ColumnarValue::Array(answer))
    }
}

fn any(texts: &StringArray, keywords: &Keywords) -> BooleanArray {
    texts.iter().map(|text| text.map(|text| keywords.found_in(text).next().is_some())).collect()
}

fn all(texts: &StringArray, keywords: &Keywords) -> Result<ArrayRef> {
    let mut lists = ListBuilder::new(StringBuilder::new());
    let mut bytes = 0;
    for text in texts {
        for word in text.into_iter().flat_map(|text| keywords.found_in(text)) {
            bytes += word.len() as u64;
            lists.values().append_value(word);
        }
        if bytes > MAX_BYTES {
            return Err(DataFault::too_large("matched_keywords() finds more than fits in memory at once"));
        }
        lists.append(text.is_some());
    }
    Ok(Arc::new(lists.finish()))
}

#[cfg(test)]
mod tests;
