// Three services to the page: times in the reader's zone, links that leave Airflow's frame, and a refresh in place.
// Nothing here is needed to read a page.
(function () {
  "use strict";

  // Times. Airflow keeps the zone that a person chose as JSON under "timezone".

  function chosenZone() {
    try {
      var kept = JSON.parse(window.localStorage.getItem("timezone"));
      new Intl.DateTimeFormat("en", { timeZone: kept || undefined });
      return kept || undefined;
    } catch {
      return undefined;
    }
  }

  var zone = chosenZone();
  var shapes = {
    short: { day: "2-digit", month: "short", hour: "2-digit", minute: "2-digit" },
    long: { day: "2-digit", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit" },
    hour: { hour: "2-digit", minute: "2-digit" },
  };

  function say(iso, shape) {
    var options = Object.assign({ timeZone: zone, hourCycle: "h23" }, shapes[shape] || shapes.short);
    var time = new Date(iso);
    if (options.day && time.getFullYear() !== new Date().getFullYear()) options.year = "numeric";
    return new Intl.DateTimeFormat("en-GB", options).format(time).replace(",", "");
  }

  function localise(part) {
    part.querySelectorAll("time[datetime]").forEach(function (time) {
      time.title = time.dateTime;
      time.textContent = say(time.dateTime, time.dataset.style);
    });
    part.querySelectorAll("text[data-time]").forEach(function (text) {
      text.textContent = say(text.dataset.time, "hour");
    });
  }

  // Links. The frame may not open windows or leave; a link that stands in Airflow's own page may.

  document.addEventListener("click", function (event) {
    var link = event.target.closest("a[data-leave]");
    if (!link || window.parent === window || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    var outer = window.parent.document.createElement("a");
    outer.href = link.href;
    if (link.dataset.leave === "new") {
      outer.target = "_blank";
      outer.rel = "noopener noreferrer";
    }
    window.parent.document.body.append(outer);
    outer.click();
    outer.remove();
  });

  // Refresh. Parts marked data-live are replaced where they have changed; focus and scrolling stay where they are.

  var wait = Number(document.body.dataset.refresh) * 1000;
  var pause = wait;
  var timer = 0;
  var announcer = document.getElementById("announcer");

  function note(text, spoken) {
    var updated = document.getElementById("updated");
    if (updated) updated.textContent = text;
    if (spoken) announcer.textContent = text;
  }

  function states(part) {
    return Array.from(part.querySelectorAll(".state"), function (each) {
      return each.textContent;
    }).join();
  }

  function replace(part, fresh) {
    localise(fresh);
    if (part.innerHTML === fresh.innerHTML) return;
    var focused = part.contains(document.activeElement) ? document.activeElement : null;
    var scrolled = Array.from(part.querySelectorAll(".scroll"), function (each) {
      return each.scrollLeft;
    });
    if (states(part) !== states(fresh)) announcer.textContent = "Batches have changed.";
    part.replaceChildren.apply(part, Array.from(fresh.childNodes));
    part.querySelectorAll(".scroll").forEach(function (each, index) {
      each.scrollLeft = scrolled[index] || 0;
    });
    if (!focused) return;
    var again = Array.from(part.querySelectorAll(focused.localName)).find(function (each) {
      return focused.href ? each.href === focused.href : each.getAttribute("aria-label") === focused.getAttribute("aria-label");
    });
    if (again) again.focus({ preventScroll: true });
  }

  function refresh() {
    fetch(window.location.href, { credentials: "same-origin", headers: { Accept: "text/html" } })
      .then(function (answer) {
        if (answer.status === 401 || answer.status === 403) {
          note("Signed out: sign in to Airflow to go on.", true);
          return null;
        }
        if (!answer.ok) throw new Error(String(answer.status));
        return answer.text();
      })
      .then(function (text) {
        if (text === null) return;
        var page = new DOMParser().parseFromString(text, "text/html");
        document.querySelectorAll("[data-live]").forEach(function (part) {
          var fresh = page.getElementById(part.id);
          if (fresh && part.id !== "updated") replace(part, fresh);
        });
        note("Updated " + say(new Date().toISOString(), "long").split(" ").pop(), false);
        pause = wait;
        if (page.body.dataset.refresh) later();
        else note("Nothing is running", false);
      })
      .catch(function () {
        pause = Math.min(pause * 2, 120000);
        note("Not updated: Airflow does not answer. Trying again.", true);
        later();
      });
  }

  function later() {
    window.clearTimeout(timer);
    timer = window.setTimeout(function () {
      if (document.hidden) document.addEventListener("visibilitychange", refresh, { once: true });
      else refresh();
    }, pause);
  }

  localise(document);
  if (wait) {
    note("Updates every " + wait / 1000 + " s", false);
    later();
  }
})();
