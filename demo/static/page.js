// What the browser adds to Gradio's page: names for screen readers, words as they were written when they are
// copied or edited, files too big stopped before they are sent, a drop anywhere, light or dark. It sends nothing.
() => {
  const words = JSON.parse(document.getElementById("words").dataset.words);
  const find = (selector, root = document) => root.querySelector(selector);
  const label = (selector, text) =>
    document.querySelectorAll(selector).forEach((element) => {
      if (element.getAttribute("aria-label") !== text) {
        element.setAttribute("aria-label", text);
        if (element.tagName === "BUTTON") element.title = text;
      }
    });

  // The server escapes what the chat shows; copying and editing bring the words themselves back.
  const decode = (shown) => {
    const area = document.createElement("textarea");
    area.innerHTML = shown; // a textarea holds text only: nothing in it becomes an element
    return area.value;
  };
  if (navigator.clipboard) {
    const write = navigator.clipboard.writeText.bind(navigator.clipboard);
    navigator.clipboard.writeText = (text) => write(decode(text));
  }
  const readableEdit = (area) => {
    if (area.dataset.decoded) return;
    area.dataset.decoded = "yes";
    area.setAttribute("aria-label", words.edit);
    const plain = decode(area.value);
    if (plain !== area.value) {
      area.value = plain;
      area.dispatchEvent(new Event("input", { bubbles: true }));
    }
  };

  // The line about the song is repainted several times a second while it is heard. A screen reader is told what it
  // says at rest, by an element of its own: one that becomes a live region with its words inside tells nothing.
  const tellSong = () => {
    const line = find("#song-line .line");
    const news = document.getElementById("song-news");
    const text = line && !find("[role=progressbar]", line) ? line.innerText : "";
    if (news.textContent !== text) news.textContent = text;
  };

  // Gradio's own "queue: 2/3" is not shown, see page.css; its number is, in our words.
  const tellPlace = () => {
    const told = /(\d+)\/\d/.exec(find("#notice .progress-text")?.textContent ?? "");
    const text = words.inLine.replace("{place}", told ? ` number ${told[1]}` : "");
    document.documentElement.style.setProperty("--words-in-line", JSON.stringify(text));
  };

  // Names and roles that Gradio leaves out
  const polish = () => {
    tellPlace();
    label("#question .submit-button", words.send);
    label("#question .stop-button", words.stop);
    label("#song .upload-container", words.drop);
    label("#song .top-panel [title=Clear]", words.remove);
    label("#chat [role=log]", words.chat);
    label("#question textarea", words.question);
    for (const id of ["notice", "local-notice"]) {
      find(`#${id}`)?.setAttribute("role", "status");
    }
    tellSong();
    find("#suggestions")?.setAttribute("role", "group");
    label("#suggestions", words.suggestions);
    document.querySelectorAll("#sampling .label-wrap").forEach((button) => {
      button.setAttribute("aria-expanded", String(button.classList.contains("open")));
    });
    document.querySelectorAll("#chat [data-testid][aria-label*='&']").forEach((message) => {
      message.setAttribute("aria-label", decode(message.getAttribute("aria-label")));
    });
    document.querySelectorAll("#chat .message textarea").forEach(readableEdit);
    document.querySelectorAll(".example:not(:has(b))").forEach((button) => {
      const [title, ...what] = button.textContent.trim().split("\n");
      const part = (tag, text) => Object.assign(document.createElement(tag), { textContent: text });
      button.replaceChildren(part("b", title), part("span", what.join(" ")));
    });
    const wrap = find("#song [data-testid=upload-text]");
    if (wrap && !wrap.dataset.words) {
      wrap.dataset.words = "ours";
      [...wrap.childNodes].filter((node) => !node.matches?.(".icon-wrap")).forEach((node) => {
        if (node.nodeType === Node.TEXT_NODE) node.textContent = "";
        else if (node.matches?.(".or")) node.style.display = "none";
      });
      wrap.append(Object.assign(document.createElement("span"), { textContent: words.drop }));
    }
  };
  let planned = false;
  const plan = () => {
    if (planned) return;
    planned = true;
    setTimeout(() => { planned = false; polish(); }, 60);
  };
  new MutationObserver(plan).observe(document.body, { childList: true, subtree: true, characterData: true });
  document.addEventListener("click", plan);
  polish();

  // Files: too big ones are stopped here with one sentence; a drop counts wherever it falls.
  const say = (text) => {
    const place = find("#local-notice .html-container") ?? find("#local-notice");
    place.replaceChildren();
    if (!text) return;
    const line = Object.assign(document.createElement("div"), { className: "line problem", textContent: text });
    place.append(line);
    line.scrollIntoView({ block: "nearest" });
  };
  const isTooBig = (file) => {
    const size = Math.ceil(file.size / 1e6);
    say(file.size > words.maxBytes
      ? words.tooBig.replace("{name}", () => file.name).replace("{size}", size.toLocaleString("en"))
      : "");
    return file.size > words.maxBytes;
  };
  const stop = (event) => {
    event.preventDefault();
    event.stopImmediatePropagation();
  };
  window.addEventListener("change", (event) => {
    const file = event.target.matches?.("#song input[type=file]") && event.target.files[0];
    if (file && isTooBig(file)) {
      stop(event);
      event.target.value = "";
    } else if (file) {
      closeEdit();
    }
  }, true);
  const carriesFile = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  window.addEventListener("dragover", (event) => {
    if (carriesFile(event)) event.preventDefault();
  });
  window.addEventListener("drop", async (event) => {
    const file = carriesFile(event) && event.dataTransfer.files[0];
    if (!file) return;
    stop(event);
    if (isTooBig(file)) return;
    find("#song .top-panel button")?.click();
    for (let wait = 0; wait < 20 && !find("#song input[type=file]"); wait += 1) {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    const input = find("#song input[type=file]");
    if (!input) return;
    const files = new DataTransfer();
    files.items.add(file);
    input.files = files.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  }, true);

  // A question left open for a change is closed when the conversation goes on: Gradio would leave it open.
  const closeEdit = () => find("#chat [aria-label=Cancel]")?.click();
  document.addEventListener("click", (event) => {
    if (event.target.closest(".example, .suggestion, #clear, .submit-button")) closeEdit();
  }, true);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.target.closest("#question")) closeEdit();
  }, true);

  // Keys: Escape stops an answer; after Stop the question box has the focus again.
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") find("#question .stop-button")?.click();
  });
  document.addEventListener("click", (event) => {
    if (event.target.closest("#question .stop-button")) find("#question textarea")?.focus();
    if (event.target.closest(".suggestion")) find("#chat-side")?.scrollIntoView({ block: "nearest" });
    if (event.target.closest(".theme-toggle")) {
      const isDark = document.body.classList.toggle("dark");
      try { window.localStorage.setItem("musilingo-theme", isDark ? "dark" : "light"); } catch { /* private mode */ }
    }
  });
  try {
    const theme = window.localStorage.getItem("musilingo-theme");
    if (theme) document.body.classList.toggle("dark", theme === "dark");
  } catch { /* private mode: follows the system */ }
};
