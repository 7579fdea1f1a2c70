// What a Node program does with OpenAI's own client: only address and key are ours.
// Prints one JSON object; tests/portal/test_clients.py reads it.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: process.env.API_KEY, maxRetries: 0 });
const messages = [{ role: "user", content: "Hello from Node" }];

const whole = await client.chat.completions.create({ model: "gpt-4o", messages });

let streamed = "";
let usage = null;
const stream = await client.chat.completions.create({
  model: "gpt-4o",
  messages,
  stream: true,
  stream_options: { include_usage: true },
});
for await (const chunk of stream) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
}

const models = [];
for await (const model of client.models.list()) models.push(model.id);

const embedding = await client.embeddings.create({ model: "text-embedding-3-small", input: "Hello from Node" });
const response = await client.responses.create({ model: "gpt-4o", input: "Hello from Node" });

let refusal;
try {
  await client.chat.completions.create({ model: "", messages });
} catch (error) {
  refusal = { name: error.constructor.name, status: error.status, code: error.code, requestId: error.requestID };
}

console.log(
  JSON.stringify({
    whole: whole.choices[0].message.content,
    streamed,
    usage,
    models,
    dimensions: embedding.data[0].embedding.length,
    response: response.output_text,
    refusal,
  }),
);
