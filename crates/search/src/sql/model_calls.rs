//! The functions that call a model, by their names in a plan.

use datafusion::logical_expr::Expr;

/// `embed(text [, kind])`: a text's vector.
pub(super) const EMBED: &str = "embed";
/// `classify(text, head)`: a text's best class.
pub(super) const CLASSIFY: &str = "classify";
/// `entities(text, head)`: a text's entities.
pub(super) const ENTITIES: &str = "entities";

/// Whether an expression is a call of a function that waits for a model.
pub(super) fn is_model_call(expression: &Expr) -> bool {
    let Expr::ScalarFunction(function) = expression else { return false };
    [EMBED, CLASSIFY, ENTITIES].contains(&function.func.name())
}
