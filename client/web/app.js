/**
 * The page: connects controls, connection and canvas.
 */

import { budgetOf, deadlineOf } from "./budget.js";
import { Connection } from "./connection.js";
import { imageFromBlob, imageFromVideo } from "./images.js";
import {
  element,
  milliseconds,
  percent,
  renderBreakdown,
  renderLegend,
  renderServer,
  renderTimeline,
} from "./panels.js";
import { changedShare, render } from "./render.js";

const WANT = { encoding: "delta", confidence: true, active: true };
const MAP_SIDE = 960; // px of a map's longer side that are enough for the page
const METRICS = { segmentation: "mIoU", pose: "PCKh@0.5" };
const SATISFIED_BUDGET = { min_confidence: 0 };
const POLL_MS = 2000;
const BUDGET_HINT = "Moves reach the server while it computes.";
const TOKEN_KEY = "anytime-token";
const REASONS = {
  complete: "all exits done",
  deadline: "stopped by the deadline",
  budget: "stopped by the budget",
  satisfied: "good enough",
  cancelled: "cancelled",
  draining: "the server is shutting down",
};

const $ = (id) => document.getElementById(id);

const VIEW_NOTES = {
  settled: "Bright pixels are those that a next stage computes; dark ones are settled and cost nothing more.",
  confidence: "From dark blue, where the network is unsure, to yellow, where it is sure.",
};

const state = {
  ready: null,
  image: null,
  updates: [], // of the request that runs or ran last
  shown: -1, // index of the update on the canvas; -1 follows the newest
  final: null,
  predicted: 0,
  rendered: null, // the update on the canvas, perhaps of the request before
  camera: null,
  stopped: false, // cancel was pressed: do not repeat
  budgetPending: false, // a slider moved, and the server has not answered yet
};

const connection = new Connection({
  onState: renderConnection,
  onReady: handleReady,
  onAccepted: (accepted) => {
    state.predicted = accepted.predicted_ms;
    setStatus(`Admitted: ${exitName(accepted.predicted_exit)} expected in ${milliseconds(accepted.predicted_ms)}.`);
  },
  onUpdate: handleUpdate,
  onApplied: (applied) => {
    state.budgetPending = false;
    $("applied").textContent =
      applied.effect === "applied"
        ? `Change ${applied.rev} in force after exit ${applied.at_exit}.`
        : `Change ${applied.rev}: ${applied.effect}. ${applied.detail ?? ""}`;
  },
  onEnd: handleEnd,
});

// ---- messages of the server -----------------------------------------------------------------

function renderConnection(phase, detail) {
  $("connection").dataset.state = phase;
  const seconds = ((detail.delay_ms ?? 0) / 1000).toFixed(detail.delay_ms < 1000 ? 1 : 0);
  const waiting = detail.fatal
    ? "Not allowed: give an access token"
    : `No connection, next try in ${seconds} s`;
  $("connection-text").textContent =
    { connecting: "Connecting", open: "Connected", waiting }[phase];
  $("reconnect").hidden = phase !== "waiting";
  updateControls();
}

function handleReady(ready) {
  state.ready = ready;
  const select = $("model");
  const before = select.value;
  select.replaceChildren(
    ...ready.models.map(({ name, task }) => element("option", { value: name }, `${name} (${task})`)),
  );
  if (ready.models.some(({ name }) => name === before)) select.value = before;
  renderModel();
  if (state.image === null) {
    $("samples").firstElementChild?.click();
  }
  updateControls();
}

function handleUpdate(update) {
  const before = state.updates.at(-1);
  update.changed = changedShare(before?.arrays.map, update.arrays.map);
  state.updates.push(update);
  state.shown = -1;
  const facts = `${capitalised(exitName(update.exit))}, ${milliseconds(update.elapsed_ms)}, ` +
    `${percent(update.confidence)} confident.`;
  setStatus(facts);
  if (!repeats()) announce(facts);
  renderAll();
}

function handleEnd(end) {
  if (end.type === "final") {
    state.final = end;
    const text = `${capitalised(exitName(end.exit))} in ${milliseconds(end.total_ms)}: ${REASONS[end.reason] ?? end.reason}.`;
    setStatus(text);
    if (!repeats()) announce(text);
  } else {
    const text = end.type === "lost"
      ? "The connection was lost while the request ran."
      : `${end.code}: ${end.detail}`;
    setStatus(text);
    announce(text);
  }
  renderAll();
  updateControls();
  const again = repeats() || state.budgetPending;
  if (end.type === "final" && again && !state.stopped) requestAnimationFrame(() => run());
}

// ---- requests -------------------------------------------------------------------------------

async function run() {
  if (!connection.open) return;
  if (state.camera !== null) state.image = await imageFromVideo($("video"));
  if (state.image === null || !connection.open) return;
  state.updates = [];
  state.shown = -1;
  state.final = null;
  state.predicted = 0;
  state.stopped = false;
  state.budgetPending = false;
  $("applied").textContent = BUDGET_HINT;
  connection.infer(
    { model: $("model").value, media_type: state.image.mediaType, budget: budget(), want: { ...WANT, scale: mapScale() } },
    state.image.file,
  );
  if (!repeats()) setStatus("Asked.");
  updateControls();
}

function budget() {
  const positions = {
    deadline: Number($("deadline").value),
    exit: Number($("exit").value),
    confidence: Number($("confidence").value),
  };
  return budgetOf(positions, model()?.exits.length ?? 1, $("risk").value);
}

/** The smallest scale at which a map of the image is large enough for the page. */
function mapScale() {
  const side = Math.max(state.image.bitmap.width, state.image.bitmap.height);
  return [0.25, 0.5].find((scale) => scale * side >= MAP_SIDE) ?? 1;
}

/** An exit in words, with the size at which it is computed where the server tells it. */
function exitName(exit) {
  const exits = model()?.exits ?? [];
  const side = exits[exit - 1]?.side;
  return `exit ${exit} of ${exits.length}${side ? ` (${side} px)` : ""}`;
}

const capitalised = (text) => text[0].toUpperCase() + text.slice(1);

function model() {
  return state.ready?.models.find(({ name }) => name === $("model").value) ?? null;
}

function repeats() {
  return $("repeat").checked || state.camera !== null;
}

async function chooseImage(blob, name) {
  stopCamera();
  try {
    state.image = await imageFromBlob(blob, name, state.ready.limits);
  } catch (error) {
    setStatus(error.message);
    announce(error.message);
    return;
  }
  clearUpdates();
  renderAll();
  await run();
}

/** Drops the updates of another image or model. */
function clearUpdates() {
  connection.cancel();
  state.rendered = null;
  state.updates = [];
  state.final = null;
}

// ---- rendering ------------------------------------------------------------------------------

function renderAll() {
  const update = state.updates.at(state.shown) ?? state.rendered;
  state.rendered = update ?? null;
  if (state.image !== null) {
    const options = {
      view: document.querySelector("input[name=view]:checked").value,
      opacity: Number($("opacity").value) / 100,
    };
    render($("canvas"), state.image.bitmap, update ?? null, model(), options);
    $("stage").classList.remove("empty");
  }
  $("canvas").setAttribute("aria-label", describe(update));
  $("progress").max = update?.exits ?? model()?.exits.length ?? 4;
  $("progress").value = update?.exit ?? 0;
  renderLegend($("legend"), update, model());
  renderExits();
}

function renderExits() {
  const last = state.updates.at(-1)?.elapsed_ms ?? 0;
  const total = state.final?.total_ms ?? Math.max(last, state.predicted, 1);
  const shown = state.shown < 0 ? state.updates.length - 1 : state.shown;
  renderTimeline($("timeline"), model()?.exits ?? [], state.updates, { total, shown, final: state.final }, (index) => {
    state.shown = index;
    renderAll();
  });
  $("timeline-empty").hidden = state.updates.length > 0;
  $("timeline-key").hidden = state.updates.length === 0;
  $("outcome").textContent = state.final
    ? `${milliseconds(state.final.total_ms)}, ${REASONS[state.final.reason] ?? state.final.reason}`
    : "";
  renderBreakdown($("breakdown"), state.final);
}

function renderView() {
  const view = document.querySelector("input[name=view]:checked").value;
  $("view-note").textContent = VIEW_NOTES[view] ?? "";
  $("view-note").hidden = !(view in VIEW_NOTES);
  renderAll();
}

function describe(update) {
  const name = state.image?.name ?? "No image yet";
  if (!update) return name;
  const kind = update.keypoints ? "joints" : "map";
  return `${name} with the ${kind} of ${exitName(update.exit)}, ` +
    `${percent(update.confidence)} confident`;
}

function updateControls() {
  const busy = connection.busy;
  $("run").disabled = !connection.open || state.image === null;
  setEnabled($("enough"), busy);
  setEnabled($("cancel"), busy || repeats());
}

/** Disabling the focused button would throw the keyboard's user out: the focus moves on. */
function setEnabled(button, enabled) {
  if (!enabled && document.activeElement === button) $("run").focus();
  button.disabled = !enabled;
}

function renderModel() {
  const served = model();
  const exits = served?.exits.length ?? 4;
  $("metric").textContent = served?.exits.some(({ quality }) => quality !== undefined) ? METRICS[served.task] : "";
  $("model-facts").textContent = served ? describeModel(served) : "";
  const slider = $("exit");
  const wasDeepest = Number(slider.value) === Number(slider.max);
  slider.max = String(exits);
  if (wasDeepest) slider.value = slider.max;
  renderRisks();
  renderBudget();
  renderLegend($("legend"), state.rendered, model());
  renderExits();
}

function describeModel({ exits, engine, precision }) {
  const sides = [...new Set(exits.map(({ side }) => side).filter(Boolean))];
  const at = sides.length > 0 ? ` at ${sides.join(", ")} px` : "";
  const named = precision && engine?.endsWith(precision); // as in native-avx512-f32
  return [`${exits.length} exits${at}`, engine, named ? "" : precision].filter(Boolean).join(" · ");
}

/** The promises about masks that the model has certificates for. */
function renderRisks() {
  const risks = (model()?.certificates ?? []).map(({ risk, confidence, images }) => new Option(
    `${percent(risk)} may differ (${percent(confidence)} sure, ${images} images)`, String(risk)));
  const chosen = $("risk").value;
  $("risk").replaceChildren(new Option("the model's own", ""), ...risks, new Option("none: exact", "0"));
  $("risk").value = chosen;
  if ($("risk").selectedIndex < 0) $("risk").value = "";
}

function renderBudget() {
  const deadline = deadlineOf(Number($("deadline").value));
  const exit = Number($("exit").value);
  const confidence = Number($("confidence").value);
  setOutput("deadline", deadline === null ? "none" : `${deadline} ms`);
  const side = model()?.exits[exit - 1]?.side;
  const deepest = exit === Number($("exit").max);
  setOutput("exit", deepest ? `${exit} (all)` : `${exit}${side ? ` (${side} px)` : ""}`);
  setOutput("confidence", confidence === 100 ? "never" : `${confidence} %`);
}

function setOutput(name, text) {
  $(`${name}-value`).textContent = text;
  $(name).setAttribute("aria-valuetext", text);
}

function setStatus(text) {
  $("status").textContent = text;
}

function announce(text) {
  $("announcer").textContent = text;
}

// ---- controls -------------------------------------------------------------------------------

$("run").addEventListener("click", () => run());
$("cancel").addEventListener("click", () => {
  state.stopped = true;
  $("repeat").checked = false;
  connection.cancel();
  stopCamera();
  updateControls();
});
$("enough").addEventListener("click", () => connection.setBudget(SATISFIED_BUDGET));
$("repeat").addEventListener("change", () => {
  updateControls();
  if ($("repeat").checked && !connection.busy) run();
});
$("reconnect").addEventListener("click", () => connection.connect());
$("model").addEventListener("change", () => {
  clearUpdates();
  renderModel();
  run();
});
for (const name of ["deadline", "exit", "confidence"]) {
  $(name).addEventListener("input", () => {
    renderBudget();
    state.budgetPending = connection.busy;
    connection.setBudget(budget());
  });
  $(name).addEventListener("change", () => {
    if (!connection.busy) run();
  });
}
$("risk").addEventListener("change", () => run());
$("opacity").addEventListener("input", renderAll);
for (const radio of document.querySelectorAll("input[name=view]")) {
  radio.addEventListener("change", renderView);
}

$("file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (file) chooseImage(file, file.name);
  event.target.value = "";
});

const stage = $("stage");
stage.classList.add("empty");
// Anywhere on the page: a file that is dropped beside the stage would else replace the page.
for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    stage.classList.add("over");
  });
}
document.addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) stage.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  stage.classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file) chooseImage(file, file.name);
});
document.addEventListener("paste", (event) => {
  const [file] = event.clipboardData.files;
  if (file) chooseImage(file, file.name);
});

$("camera").addEventListener("click", () => (state.camera === null ? startCamera() : stopCamera()));

async function startCamera() {
  if (!navigator.mediaDevices) {
    setStatus("The camera needs a secure page: https, or the server on this machine.");
    return;
  }
  try {
    state.camera = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    setStatus(`The camera cannot be used: ${error.message}`);
    return;
  }
  $("video").srcObject = state.camera;
  await $("video").play();
  $("camera").setAttribute("aria-pressed", "true");
  $("camera").textContent = "Stop the camera";
  if (!connection.busy) run();
}

function stopCamera() {
  if (state.camera === null) return;
  for (const track of state.camera.getTracks()) track.stop();
  state.camera = null;
  $("video").srcObject = null;
  $("camera").setAttribute("aria-pressed", "false");
  $("camera").textContent = "Use the camera";
}

// ---- samples, load, token -------------------------------------------------------------------

async function loadSamples() {
  const answer = await fetch("samples/index.json");
  if (!answer.ok) return;
  const { samples } = await answer.json();
  $("samples").replaceChildren(
    ...samples.map(({ file, title, task }) => {
      const image = element("img", { src: `samples/${file}`, alt: title });
      return element("button", { type: "button", title, onclick: () => chooseSample(file, title, task) }, image);
    }),
  );
  if (state.ready !== null && state.image === null) $("samples").firstElementChild?.click();
}

async function chooseSample(file, title, task) {
  if (state.ready === null) return;
  const fitting = state.ready.models.find((each) => each.task === task);
  if (fitting && model()?.task !== task) {
    $("model").value = fitting.name;
    clearUpdates();
    renderModel();
  }
  const answer = await fetch(`samples/${file}`);
  if (answer.ok) await chooseImage(await answer.blob(), title);
  else setStatus(`${title} could not be loaded.`);
}

async function pollServer() {
  if (document.visibilityState !== "visible") return;
  const token = sessionStorage.getItem(TOKEN_KEY);
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  try {
    const answer = await fetch("v1/budget", { headers });
    if (answer.ok) renderServer($("server"), await answer.json());
    if (answer.status === 401) $("access").open = true;
  } catch {
    $("server").replaceChildren(element("p", { className: "quiet" }, "The server does not answer."));
  }
}

$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN_KEY, $("token").value);
  connection.connect($("token").value);
  pollServer();
});

renderBudget();
connection.connect(sessionStorage.getItem(TOKEN_KEY) ?? "");
loadSamples();
pollServer();
setInterval(pollServer, POLL_MS);
