# Requests by Ruby's library. `client.rb URL KEY` prints a line for each: its name, a tab, the status.
require 'json'
require 'net/http'
require 'stringio'
require 'zlib'

base, key = ARGV
URL = URI("#{base}/webhooks/email-marketing/click")
AUTH = { 'Authorization' => "Bearer #{key}" }.freeze

def click(name)
  noise = name.include?('large') ? ",\"noise\":\"#{'x' * 100_000}\"" : ''
  "{\"campid\":\"#{name}\"#{noise}}"
end

def say(name, answer)
  puts "#{name}\t#{answer.code}"
end

def post(name, uri: URL, headers: {}, body: click(name))
  say(name, Net::HTTP.post(uri, body, AUTH.merge('Content-Type' => 'application/json').merge(headers)))
end

post('Ruby: post')
post('Ruby: large, expects 100', headers: { 'Expect' => '100-continue' })
post('Ruby: a charset', headers: { 'Content-Type' => 'application/json; charset=utf8' })
post('Ruby: gzip', headers: { 'Content-Encoding' => 'gzip' }, body: Zlib.gzip(click('Ruby: gzip')))
post('Ruby: deflate', headers: { 'Content-Encoding' => 'deflate' },
                      body: Zlib::Deflate.deflate(click('Ruby: deflate')))
post('Ruby: a slash at the end', uri: URI("#{URL}/"))

request = Net::HTTP::Post.new(URI("#{base}/basic"))
request.basic_auth('user', 'a-password-of-the-tests')
request.body = click('Ruby: user and password')
say('Ruby: user and password', Net::HTTP.start(URL.host, URL.port) { |http| http.request(request) })

request = Net::HTTP::Post.new(URI("#{base}/form"), AUTH)
request.set_form_data('campid' => 'Ruby: a form')
say('Ruby: a form', Net::HTTP.start(URL.host, URL.port) { |http| http.request(request) })

Net::HTTP.start(URL.host, URL.port) do |http|
  request = Net::HTTP::Post.new(URL, AUTH.merge('Transfer-Encoding' => 'chunked'))
  request.body_stream = StringIO.new(click('Ruby: a stream'))
  say('Ruby: a stream', http.request(request))
  say('Ruby: second of a connection', http.post(URL.path, click('Ruby: second of a connection'), AUTH))
end
