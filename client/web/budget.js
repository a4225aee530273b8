/**
 * Converts between the budget's sliders, the budget and text.
 *
 * At the right end each slider means "no limit", and its limit is then not sent at all.
 */

const SHORTEST_MS = 5;
const LONGEST_MS = 5000;

/** Deadline slider: 0..100, logarithmic from 5 ms to 5 s; 100 is none. */
export function deadlineOf(position) {
  if (position >= 100) return null;
  const ms = SHORTEST_MS * (LONGEST_MS / SHORTEST_MS) ** (position / 99);
  return ms < 100 ? Math.round(ms) : Math.round(ms / 10) * 10;
}

/** The first slider position whose deadline is at least this long; 100 is none. */
export function positionOf(ms) {
  for (let position = 0; position < 100; position += 1) {
    if (deadlineOf(position) >= ms) return position;
  }
  return 100;
}

/**
 * @param {{deadline: number, exit: number, confidence: number}} positions of the sliders
 * @param {string} risk of the certificate to compute with, "0" for no masks; "" asks for nothing
 * @param {number} exits that the model has
 */
export function budgetOf(positions, exits, risk) {
  const budget = {};
  const deadline = deadlineOf(positions.deadline);
  if (deadline !== null) budget.deadline_ms = deadline;
  if (positions.exit < exits) budget.max_exit = positions.exit;
  if (positions.confidence < 100) budget.min_confidence = positions.confidence / 100;
  if (risk !== "") budget.max_risk = Number(risk);
  return budget;
}

/** A budget as text for people. */
export function describeBudget(budget) {
  const parts = [];
  if (budget.deadline_ms !== undefined) parts.push(`${round(budget.deadline_ms)} ms`);
  if (budget.compute_gmacs !== undefined) parts.push(`${round(budget.compute_gmacs)} billion multiply-adds`);
  if (budget.max_exit !== undefined) parts.push(`exit ${budget.max_exit} at most`);
  if (budget.min_confidence !== undefined) {
    parts.push(`until ${Math.round(100 * budget.min_confidence)} % confident`);
  }
  if (budget.confident_share !== undefined) {
    parts.push(`until ${Math.round(100 * budget.confident_share)} % settled`);
  }
  if (budget.max_risk !== undefined) parts.push(`at most ${round(100 * budget.max_risk)} % of settled pixels may differ`);
  if (budget.schedule?.length) parts.push(`${budget.schedule.length} changes ahead`);
  return parts.length ? parts.join(", ") : "no limit";
}

function round(value) {
  return value < 10 ? Number(value.toFixed(1)) : Math.round(value);
}
