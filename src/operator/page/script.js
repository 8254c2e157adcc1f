// Puts each part of the page that has changed in its place, once a second, as the bridge sends it: HTML
// of its own, in which every value is escaped. Nothing is asked for while nobody sees the page.
const status = document.getElementById("link");
const pause = document.getElementById("pause");
let source;

function close() {
  source?.close();
  source = undefined;
}

function open() {
  if (source || document.hidden || pause.getAttribute("aria-pressed") === "true") return;
  source = new EventSource("page/events");
  source.onopen = () => { status.textContent = "live"; };
  source.onmessage = (event) => {
    for (const [id, html] of Object.entries(JSON.parse(event.data))) {
      document.getElementById(id).innerHTML = html;
    }
  };
  source.onerror = () => {
    status.textContent = "not connected, trying again";
    // The browser tries again by itself, unless it was refused.
    if (source?.readyState === EventSource.CLOSED) {
      close();
      setTimeout(open, 5000);
    }
  };
}

pause.addEventListener("click", () => {
  const isPaused = pause.getAttribute("aria-pressed") !== "true";
  pause.setAttribute("aria-pressed", isPaused);
  if (isPaused) {
    close();
    status.textContent = "paused";
  } else {
    open();
  }
});
document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
pause.hidden = false;
open();
