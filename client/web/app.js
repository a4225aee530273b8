/**
 * The page: connects controls, connection and canvas.
 */

import { budgetOf, deadlineOf, positionOf } from "./budget.js";
import { Connection } from "./connection.js";
import { imageFromBlob, imageFromVideo, nextPicture } from "./images.js";
import {
  Tally,
  asSentence,
  capitalised,
  describeEnd,
  endOfFrame,
  milliseconds,
  pauseBeforeNext,
  reasonOf,
} from "./outcomes.js";
import {
  element,
  percent,
  renderBreakdown,
  renderLegend,
  renderServer,
  renderStrip,
  renderTimeline,
} from "./panels.js";
import { changedShare, lookUp, render } from "./render.js";
import { followPointer } from "./pointer.js";
import { Replay } from "./replay.js";

const WANT = { encoding: "delta", confidence: true, active: true };
const REUSE = {}; // the protocol's defaults
const MAP_SIDE = 960; // px of a map's longer side that are enough for the page
const METRICS = { segmentation: "mIoU", pose: "PCKh@0.5" };
const METRIC_NOTES = {
  segmentation: "mIoU: by how much the map and the truth overlap, averaged over classes",
  pose: "PCKh@0.5: share of joints that are less than half a head's length off",
};
const SATISFIED_BUDGET = { min_confidence: 0 };
const POLL_MS = 2000;
const UNKNOWN_IMAGES = "On other images its answer means nothing, however sure it looks.";
const BUDGET_HINT = "What you change here reaches the server while it computes.";
const TOKEN_KEY = "anytime-token";
const SPARE = 1.15; // by which a proposed deadline is longer than what a first map takes
const LATE_FRAMES = 3; // in a row, before a stream is said to be too late
const SOURCE_BUTTON = { null: "Use the camera", camera: "Stop the camera", video: "Stop the video" };

const $ = (id) => document.getElementById(id);

const VIEW_NOTES = {
  settled: "Bright pixels are still computed at the next exit; dark ones are settled and cost nothing more.",
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
  source: null, // "camera" or "video" while one is streamed
  turn: 0, // counts sources, so that what belongs to an earlier one ends
  frames: new Map(), // images of the stream that are under way, by their number
  sourceName: "",
  tally: new Tally(),
  nextFrame: 0, // timer of the next frame after one that failed
  stopped: false, // cancel was pressed: do not repeat
  budgetPending: false, // a slider moved, and the server has not answered yet
};

const replay = new Replay();

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
    $("applied").textContent = describeChange(applied);
  },
  onFrameEnd: handleFrameEnd,
  onEnd: handleEnd,
});

// ---- messages of the server -----------------------------------------------------------------

function renderConnection(phase, detail) {
  $("connection").dataset.state = phase;
  const seconds = ((detail.delay_ms ?? 0) / 1000).toFixed(detail.delay_ms < 1000 ? 1 : 0);
  const missing = detail.blocked ? "The server lets no websocket through" : "No connection";
  $("connection-text").textContent = {
    connecting: "Connecting",
    open: "Connected",
    waiting: `${missing}, next try in ${seconds} s`,
    refused: "Not allowed",
  }[phase];
  $("reconnect").hidden = phase !== "waiting";
  if (phase === "refused") showAccess(detail);
  if (phase === "open") $("access").hidden = true;
  updateControls();
}

function showAccess({ code, hasToken }) {
  const isToken = code === 401 || code === 4401;
  const wanted = hasToken ? "This is not the server's access token." : "This server wants an access token.";
  $("access-text").textContent = isToken ? wanted : "The server does not allow pages from this address.";
  $("access").classList.toggle("error", hasToken || !isToken);
  $("token-form").hidden = !isToken;
  $("access").hidden = false;
  announce($("access-text").textContent);
  if (isToken) $("token").focus();
}

function describeChange({ effect, at_exit: exit, detail }) {
  if (effect === "applied") return `Your change holds since ${exit === 0 ? "before the first exit" : `exit ${exit}`}.`;
  if (effect === "gone") return "The request was over before your change came.";
  return effect === "stale" ? "A later change holds." : `The server refused your change: ${detail}`;
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
  if (state.image === null && state.source === null) {
    $("samples").firstElementChild?.click();
  } else if (repeats()) {
    run();
  }
  updateControls();
}

function handleUpdate(update) {
  if (update.frame !== undefined) {
    const shown = state.image;
    state.image = state.frames.get(update.frame) ?? shown;
    if (shown !== state.image) shown?.bitmap.close();
    state.updates = [];
  }
  const before = state.updates.at(-1);
  update.changed = changedShare(before?.arrays.map, update.arrays.map);
  state.updates.push(update);
  state.shown = -1;
  const facts = factsOf(update);
  setStatus(facts);
  if (!repeats()) announce(facts);
  renderAll();
}

function handleFrameEnd(frameEnd) {
  for (const [number, { bitmap }] of state.frames) {
    if (number > frameEnd.frame) break;
    state.frames.delete(number);
    if (bitmap !== state.image?.bitmap) bitmap.close();
  }
  const end = endOfFrame(frameEnd);
  state.tally.addFrame(frameEnd, performance.now());
  $("tally").textContent = state.tally.text;
  if (end.type === "final") {
    state.final = end;
    if (end.exit > 0) proposeDeadline(null);
  } else if (pauseBeforeNext(end) === null || state.tally.lateInARow >= LATE_FRAMES) {
    const { text, neededMs } = describeEnd(end, exitName);
    setStatus(text, "error");
    proposeDeadline(neededMs);
    if (state.tally.lateInARow <= LATE_FRAMES) announce(text);
  }
  renderExits();
}

function handleEnd(end) {
  dropFrames();
  if (end.type === "closed") {
    setStatus(describeEnd(end, exitName).text, "done");
    updateControls();
    return;
  }
  state.final = end.type === "final" ? end : null;
  const { text, isError, neededMs } = describeEnd(end, exitName);
  const pause = pauseBeforeNext(end);
  if (repeats() && pause === null && end.type !== "lost") stopRepeating();
  const again = (repeats() || state.budgetPending) && pause !== null && !state.stopped;
  if (repeats()) {
    state.tally.add(end, performance.now());
    $("tally").textContent = state.tally.text;
  } else if (state.updates.length === 0) {
    state.rendered = null; // the map of another request would be taken for this one's
  }
  // One late frame of a stream is counted; that it is always late is an error.
  if (!isError || !again || state.tally.lateInARow >= LATE_FRAMES) {
    setStatus(text, isError ? "error" : "done");
    proposeDeadline(neededMs);
    if (!repeats() || isError) announce(text);
  }
  renderAll();
  if (!repeats()) renderExitStrip();
  updateControls();
  if (again) scheduleRun(pause);
}

function scheduleRun(pause) {
  clearTimeout(state.nextFrame);
  if (pause === 0) requestAnimationFrame(() => run());
  else state.nextFrame = setTimeout(run, pause);
}

/** Offers a deadline that would do; nothing where none was too tight. */
function proposeDeadline(neededMs) {
  const position = neededMs === null ? 100 : positionOf(SPARE * neededMs);
  const ms = deadlineOf(position);
  $("fix").hidden = neededMs === null;
  $("fix").textContent = ms === null ? "Take the deadline away" : `Set it to ${ms} ms`;
  $("fix").value = String(position);
}

// ---- requests -------------------------------------------------------------------------------

function run() {
  const image = state.source === null ? state.image : $("video");
  if (image === null || !connection.open) return;
  replay.stop();
  clearTimeout(state.nextFrame);
  state.updates = [];
  state.shown = -1;
  state.final = null;
  state.predicted = 0;
  state.stopped = false;
  state.budgetPending = false;
  $("applied").textContent = BUDGET_HINT;
  const request = { model: $("model").value, budget: budget() };
  if (state.source === null) {
    const want = { ...WANT, scale: mapScale(image.bitmap.width, image.bitmap.height) };
    connection.infer({ ...request, media_type: image.mediaType, want }, image.file);
  } else {
    dropFrames();
    const want = { ...WANT, scale: mapScale(image.videoWidth, image.videoHeight), progress: false };
    connection.openStream({ ...request, want, reuse: REUSE });
  }
  if (!repeats()) {
    setStatus("Sent.");
    proposeDeadline(null);
    $("tally").textContent = "";
    state.tally = new Tally();
  }
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

/** Sends the pictures of the source as they come, as long as it is the source. */
async function streamPictures() {
  state.turn += 1;
  const { turn } = state;
  const isOver = () => state.source === null || state.turn !== turn;
  while (!isOver()) {
    await nextPicture($("video"));
    if (isOver() || !connection.takesFrames) continue;
    let image;
    try {
      image = await imageFromVideo($("video"), state.sourceName);
    } catch (error) {
      if (isOver()) return;
      showError(`${state.sourceName} gives no picture: ${error.message}`);
      stopSource();
      return;
    }
    const number = isOver() ? 0 : connection.sendFrame(image.mediaType, image.file);
    if (number > 0) state.frames.set(number, image);
    else image.bitmap.close();
  }
}

function dropFrames() {
  for (const { bitmap } of state.frames.values()) if (bitmap !== state.image?.bitmap) bitmap.close();
  state.frames.clear();
}

/** The smallest scale at which a map of an image is large enough for the page. */
function mapScale(width, height) {
  const side = Math.max(width, height);
  return [0.25, 0.5].find((scale) => scale * side >= MAP_SIDE) ?? 1;
}

/** An exit in words, with the size at which it is computed where the server tells it. */
function exitName(exit) {
  const exits = model()?.exits ?? [];
  const side = exits[exit - 1]?.side;
  return `exit ${exit} of ${exits.length}${side ? ` (${side} px)` : ""}`;
}

function factsOf(update) {
  return `${capitalised(exitName(update.exit))}, ${milliseconds(update.elapsed_ms)}, ` +
    `${percent(update.confidence)} confident.`;
}

function model() {
  return state.ready?.models.find(({ name }) => name === $("model").value) ?? null;
}

function repeats() {
  return $("repeat").checked || state.source !== null;
}

function stopRepeating() {
  $("repeat").checked = false;
  stopSource();
}

function chooseFile(file) {
  if (state.ready === null) showError("There is no connection to the server yet.");
  else if (file.type.startsWith("video/")) startVideo(file);
  else chooseImage(file, file.name);
}

async function chooseImage(blob, name) {
  stopSource();
  try {
    state.image = await imageFromBlob(blob, name, state.ready.limits);
  } catch (error) {
    showError(error.message);
    return;
  }
  clearUpdates();
  renderAll();
  run();
}

/** Drops the updates of another image or model. */
function clearUpdates() {
  connection.cancel();
  state.rendered = null;
  state.updates = [];
  state.final = null;
  renderExitStrip();
}

// ---- rendering ------------------------------------------------------------------------------

function viewOptions() {
  return {
    view: document.querySelector("input[name=view]:checked").value,
    opacity: Number($("opacity").value) / 100,
  };
}

/** @param {boolean} [withMap] false shows the image alone */
function renderAll(withMap = true) {
  const update = withMap ? state.updates.at(state.shown) ?? state.rendered : null;
  if (withMap) state.rendered = update ?? null;
  if (state.image !== null) {
    render($("canvas"), state.image.bitmap, update ?? null, model(), viewOptions());
    if (!update) $("under").hidden = true;
    $("stage").classList.remove("empty");
  }
  $("canvas").setAttribute("aria-label", describe(update));
  $("progress").max = update?.exits ?? model()?.exits.length ?? 4;
  $("progress").value = update?.exit ?? 0;
  for (const button of $("samples").children) {
    button.setAttribute("aria-pressed", String(button.title === state.image?.name));
  }
  renderLegend($("legend"), update, model());
  renderExits();
}

function renderExits() {
  const last = state.updates.at(-1)?.elapsed_ms ?? 0;
  const total = state.final?.total_ms ?? Math.max(last, state.predicted, 1);
  const shown = state.shown < 0 ? state.updates.length - 1 : state.shown;
  renderTimeline($("timeline"), model()?.exits ?? [], state.updates, { total, shown, final: state.final }, showExit);
  $("replay").hidden = repeats() || connection.busy || state.updates.length < 2;
  $("timeline-empty").hidden = state.updates.length > 0;
  $("timeline-key").hidden = state.updates.length === 0;
  $("outcome").textContent = state.final
    ? `${milliseconds(state.final.total_ms)}, ${reasonOf(state.final)}`
    : "";
  renderBreakdown($("breakdown"), state.final);
}

function showExit(index) {
  replay.stop();
  state.shown = index;
  renderAll();
}

function renderExitStrip() {
  const shown = repeats() ? [] : state.updates;
  $("strip").hidden = shown.length < 2;
  renderStrip($("strip"), state.image?.bitmap, shown.length < 2 ? [] : shown, model(), viewOptions(), showExit);
}

function replayExits() {
  if (replay.runs) {
    replay.stop();
    return;
  }
  const times = state.updates.map((update) => update.elapsed_ms);
  $("replay").textContent = "Stop";
  replay.start(times, (index, slowness) => {
    state.shown = index;
    renderAll(index >= 0);
    const slowed = slowness > 1 ? ` Slowed ${Math.round(slowness)} times.` : "";
    setStatus((index < 0 ? "Sent." : factsOf(state.updates[index])) + slowed);
  }, () => {
    $("replay").textContent = "Replay slowly";
    state.shown = -1;
    renderAll();
    if (state.final) setStatus(describeEnd(state.final, exitName).text, "done");
  });
}

function renderView() {
  const view = document.querySelector("input[name=view]:checked").value;
  $("view-note").textContent = VIEW_NOTES[view] ?? "";
  $("view-note").hidden = !(view in VIEW_NOTES);
  renderAll();
  renderExitStrip();
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
  setEnabled($("enough"), busy && state.source === null);
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
  const isMeasured = served?.exits.some(({ quality }) => quality !== undefined) ?? false;
  $("metric").textContent = isMeasured ? METRICS[served.task] : "";
  $("quality-note").textContent = isMeasured ? `${METRIC_NOTES[served.task]}; on images not used for training.` : "";
  $("quality-note").hidden = !isMeasured;
  $("model-facts").textContent = served ? describeModel(served) : "";
  $("model-knows").textContent = served?.description ? `${asSentence(served.description)} ${UNKNOWN_IMAGES}` : "";
  $("model-knows").hidden = !served?.description;
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
    `at most ${percent(risk)} of them differ (${percent(confidence)} sure, ${images} images)`, String(risk)));
  const chosen = $("risk").value;
  $("risk").replaceChildren(
    new Option("as the model was tuned", ""), ...risks, new Option("never: exact, slower", "0"));
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

/** @param {"done"|"error"|""} [kind] an error looks like one */
function setStatus(text, kind = "") {
  $("status").textContent = text;
  $("status").dataset.kind = kind;
}

function showError(text) {
  setStatus(text, "error");
  proposeDeadline(null);
  announce(text);
}

function announce(text) {
  $("announcer").textContent = text;
}

// ---- controls -------------------------------------------------------------------------------

$("run").addEventListener("click", () => run());
$("cancel").addEventListener("click", () => {
  state.stopped = true;
  clearTimeout(state.nextFrame);
  connection.cancel();
  stopRepeating();
  updateControls();
});
$("enough").addEventListener("click", () => connection.setBudget(SATISFIED_BUDGET));
$("replay").addEventListener("click", replayExits);
$("fix").addEventListener("click", () => {
  $("deadline").value = $("fix").value;
  renderBudget();
  $("run").focus();
  run();
});
$("repeat").addEventListener("change", () => {
  state.stopped = false;
  state.tally = new Tally();
  $("tally").textContent = "";
  renderExitStrip();
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
$("opacity").addEventListener("input", () => renderAll());
$("opacity").addEventListener("change", renderExitStrip);
for (const radio of document.querySelectorAll("input[name=view]")) {
  radio.addEventListener("change", renderView);
}

$("file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (file) chooseFile(file);
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
  if (file) chooseFile(file);
});
document.addEventListener("paste", (event) => {
  const [file] = event.clipboardData.files;
  if (file) chooseFile(file);
});

$("camera").addEventListener("click", () => (state.source === null ? startCamera() : stopSource()));

async function startCamera() {
  if (!navigator.mediaDevices) {
    showError("The camera needs a secure page: https, or the server on this machine.");
    return;
  }
  let camera;
  try {
    camera = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    showError(`The camera cannot be used: ${error.message}`);
    return;
  }
  $("video").srcObject = camera;
  await startSource("camera", "Camera");
}

/** Plays a video over and over at its own speed; of frames that come while one is computed the latest wins. */
async function startVideo(file) {
  stopSource();
  $("video").src = URL.createObjectURL(file);
  await startSource("video", file.name);
}

async function startSource(kind, name) {
  try {
    await $("video").play();
  } catch {
    showError(`${name} is not a video that this browser can play.`);
    releaseVideo();
    return;
  }
  clearUpdates();
  state.source = kind;
  state.sourceName = name;
  state.stopped = false;
  state.tally = new Tally();
  renderSource();
  run();
  streamPictures();
}

function stopSource() {
  if (state.source === null) return;
  connection.cancel();
  releaseVideo();
  state.source = null;
  renderSource();
}

function releaseVideo() {
  const video = $("video");
  for (const track of video.srcObject?.getTracks() ?? []) track.stop();
  if (video.src) URL.revokeObjectURL(video.src);
  video.srcObject = null;
  video.removeAttribute("src");
}

function renderSource() {
  $("camera").setAttribute("aria-pressed", String(state.source !== null));
  $("camera").textContent = SOURCE_BUTTON[state.source];
  updateControls();
}

followPointer($("canvas"), $("stage"), $("under"), (x, y) => state.rendered && lookUp(state.rendered, model(), x, y));

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
  else showError(`${title} could not be loaded.`);
}

async function pollServer() {
  if (document.visibilityState !== "visible") return;
  const token = sessionStorage.getItem(TOKEN_KEY);
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  try {
    const answer = await fetch("v1/budget", { headers });
    if (answer.ok) renderServer($("server"), await answer.json());
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
