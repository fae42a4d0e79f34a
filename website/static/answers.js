// Lets quizzes and labs answer on a page without a kernel, and remembers in this browser what was answered, so that
// questions come back: after a day if the answer was wrong, else after 7, 21 and 60 days. Nothing leaves the computer.
(() => {
  "use strict";
  const KEY = "course-answers", DAY = 86_400_000, WAIT = [1, 7, 21, 60];
  let memory = {};  // where the browser keeps nothing, for this visit

  function kept() {
    try {
      const found = JSON.parse(localStorage.getItem(KEY) || "{}");
      return found && typeof found === "object" ? found : {};
    } catch { return memory; }
  }

  function keep(all) {
    memory = all;
    try { localStorage.setItem(KEY, JSON.stringify(all)); } catch { /* a private window, or a full disk */ }
  }

  function note(id, chosen, right) {
    const all = kept(), before = all[id] || { box: 0 }, now = Date.now();
    const first = !(before.day && now - before.day < DAY / 2);  // only the first answer of a sitting moves a question
    const box = !first ? before.box : right ? Math.min(before.box + 1, WAIT.length - 1) : 0;
    const due = first ? now + WAIT[box] * DAY : before.due;
    all[id] = { chosen, right, box, due, day: first ? now : before.day };
    keep(all);
  }

  const isDue = one => one && one.due <= Date.now();
  const make = (tag, properties = {}, ...inside) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...inside);
    return element;
  };

  class Question {
    constructor(element, changed) {
      this.element = element;
      this.right = Number(element.dataset.right);
      this.answers = [...element.querySelectorAll(".answers > li")].map(item => item.innerHTML);
      this.said = make("div", { className: "said" });
      this.said.setAttribute("role", "status");
      this.buttons = [...element.querySelectorAll(".choices > li")].map((item, k) => {
        const button = make("button", { type: "button", innerHTML: item.innerHTML });
        button.addEventListener("click", () => { this.show(k); note(element.id, k, k === this.right); changed(); });
        item.replaceChildren(button);
        return button;
      });
      element.classList.add("live");
      element.querySelector(".choices").after(this.said);
      this.show(null);
    }

    show(chosen) {
      chosen = this.answers[chosen] === undefined ? null : chosen;
      this.chosen = chosen;
      this.buttons.forEach((button, k) => {
        button.setAttribute("aria-pressed", k === chosen);
        button.className = k === chosen ? (k === this.right ? "is-right" : "is-wrong") : "";
      });
      this.said.className = "said" + (chosen === null ? "" : chosen === this.right ? " is-right" : " is-wrong");
      this.said.innerHTML = chosen === null ? "" : this.answers[chosen];
    }
  }

  function startQuiz(quiz) {
    const count = make("p", { className: "quiz-count" });
    const questions = [...quiz.querySelectorAll(".question")].map(one => new Question(one, tell));
    function tell() {
      const given = questions.filter(one => one.chosen !== null);
      const right = given.filter(one => one.chosen === one.right).length;
      const again = make("button", { type: "button", textContent: "Start again" });
      again.addEventListener("click", () => {
        const all = kept();
        questions.forEach(one => { one.show(null); if (all[one.element.id]) delete all[one.element.id].chosen; });
        keep(all);
        tell();
        questions[0].buttons[0].focus();
      });
      count.replaceChildren(`${given.length} of ${questions.length} answered, ${right} right. `,
                            ...(given.length ? [again] : []));
    }
    const all = kept();
    questions.forEach(one => one.show(all[one.element.id]?.chosen ?? null));
    tell();
    if (questions.length > 1) quiz.append(count);
  }

  // The page on which questions come back: those that are due, or all of them.
  function startReview(says) {
    const sections = [...document.querySelectorAll(".quiz.review")];
    const questions = sections.flatMap(section => [...section.querySelectorAll(".question")]
      .map(one => new Question(one, () => tell())));
    const due = new Set(questions.filter(one => isDue(kept()[one.element.id])));
    const everything = make("button", { type: "button" });
    let all = questions.some(one => location.hash === "#" + one.element.id);
    everything.addEventListener("click", () => { all = !all; arrange(); tell(); });
    function arrange() {
      questions.forEach(one => { one.element.hidden = !all && !due.has(one); });
      sections.forEach(section => { section.hidden = !section.querySelector(".question:not([hidden])"); });
    }
    function tell() {
      const left = [...due].filter(one => one.chosen === null).length;
      const dates = questions.map(one => kept()[one.element.id]?.due).filter(date => date > Date.now());
      const next = dates.length ? new Date(Math.min(...dates)).toLocaleDateString("en", { day: "numeric", month: "long" }) : "";
      const words = left ? `${left} question${left > 1 ? "s" : ""} to answer again today.`
        : due.size ? `All answered for today.${next && ` The next ones come on ${next}.`}`
        : next ? `Nothing is due today. The next questions come on ${next}.`
        : "You have not answered a quiz here yet. Answer one at the end of a lesson; its questions come back here.";
      everything.textContent = all ? "Show only what is due" : "Show all questions";
      says.replaceChildren(words + " ", everything);
    }
    arrange();
    tell();
  }

  function startDue(box) {
    const count = Object.entries(kept()).filter(([id, one]) => id.startsWith("quiz-") && isDue(one)).length;
    if (!count) return;
    box.querySelector("a").textContent = count === 1 ? "One question of an earlier lesson is due: what did you learn?"
      : `${count} questions of earlier lessons are due: what did you learn a week ago?`;
    box.hidden = false;
  }

  const says = document.querySelector(".review-says");
  if (says) startReview(says);
  else document.querySelectorAll(".quiz").forEach(startQuiz);
  document.querySelectorAll(".course-due").forEach(startDue);
})();
